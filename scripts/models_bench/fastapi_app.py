"""What many people serve a model with today: FastAPI and onnxruntime, JSON in and out. Run by models_bench.sh with uvicorn."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Rows(BaseModel):
    rows: list[list[float]]


@app.post("/predict")
async def predict(request: Rows):
    rows = np.asarray(request.rows, dtype=np.float32)
    return {"scores": session.run(None, {session.get_inputs()[0].name: rows})[0].ravel().tolist()}
