"""The wire, without any I/O: what a request begins with, what a hello is, what an error answer means.

Little-endian. A request is ``[u32 rows][float32 * rows * features]``, its answer is ``[u8 rows][float32 * rows *
outputs]`` or, in its place, ``[u8 0][u8 code]``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from ._errors import DisrustError, ModelFailed, ModelMismatch, Overloaded, ProtocolError, ServerClosing

#: float32 as it travels; on little-endian machines the same as numpy.float32.
WIRE: Final = np.dtype("<f4")
FLOAT_BYTES: Final = 4
HEADER_BYTES: Final = 4

#: Rows in a request, unless a hello says fewer.
ROWS_MAX: Final = 64
#: The most rows that a hello can say: an answer counts them in one byte.
ROWS_COUNTABLE: Final = 255
#: More outputs than any server has: one that claims more is none. They decide how much memory answers take.
OUTPUTS_MAX: Final = 65_536

#: The beginning of a request of as many rows as the index.
HEADERS: Final = tuple(struct.pack("<I", rows) for rows in range(ROWS_MAX + 1))

#: "DSR1", and 0 features: tell me.
HELLO: Final = struct.pack("<II", 0x31525344, 0)
HELLO_CODE: Final = 128
_HELLO_HEAD: Final = struct.Struct("<BBH")
_HELLO_BODY: Final = struct.Struct("<IIIQ")
_NAME_BYTES_MAX: Final = 255
#: Bytes of the longest answer to a hello.
HELLO_ANSWER_BYTES_MAX: Final = _HELLO_HEAD.size + _HELLO_BODY.size + _NAME_BYTES_MAX

ERROR_ANSWER_BYTES: Final = 2
BAD_COUNT: Final = 1
CLOSING: Final = 4


@dataclass(frozen=True)
class Model:
    """What a server says of its model.

    Attributes:
        name: The model's name.
        version: The first 8 bytes of the SHA-256 of the model's file; 0 for ``sum``. ``f"{version:016x}"`` is
            how ``sha256sum`` and the server's log begin it.
        features: Numbers in a row.
        outputs: Numbers in the answer to a row.
        max_vectors: Rows in one request; longer calls are split.
    """

    name: str
    version: int
    features: int
    outputs: int
    max_vectors: int


def read_hello(answer: bytes | bytearray | memoryview) -> tuple[Model | int, int] | None:
    """Reads the answer to a hello at the front of some bytes.

    Returns:
        The model, or the code of an error answer; and its length in bytes. None if more bytes must arrive.

    Raises:
        ProtocolError: It is no such answer.
    """
    if len(answer) < ERROR_ANSWER_BYTES:
        if len(answer) == 1 and answer[0] != 0:
            raise ProtocolError(f"the answer to a hello begins with {answer[0]}, not 0: this is no disrust server")
        return None
    if answer[0] != 0:
        raise ProtocolError(f"the answer to a hello begins with {answer[0]}, not 0: this is no disrust server")
    if answer[1] != HELLO_CODE:
        return answer[1], ERROR_ANSWER_BYTES
    if len(answer) < _HELLO_HEAD.size:
        return None
    _, _, length = _HELLO_HEAD.unpack_from(answer)
    if not _HELLO_BODY.size <= length <= _HELLO_BODY.size + _NAME_BYTES_MAX:
        raise ProtocolError(f"the answer to a hello claims to have {length} bytes, which none has")
    end = _HELLO_HEAD.size + length
    if len(answer) < end:
        return None
    features, outputs, max_vectors, version = _HELLO_BODY.unpack_from(answer, _HELLO_HEAD.size)
    name = bytes(answer[_HELLO_HEAD.size + _HELLO_BODY.size : end])
    if features == 0 or not 1 <= outputs <= OUTPUTS_MAX or not 1 <= max_vectors <= ROWS_COUNTABLE:
        raise ProtocolError(
            f"the answer to a hello claims {features} features, {outputs} outputs and {max_vectors} rows a request"
        )
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("the model's name in the answer to a hello is not UTF-8") from error
    return Model(text, version, features, outputs, max_vectors), end


def error_of(code: int, server: str) -> DisrustError:
    """The exception that an error answer's code stands for."""
    if code == BAD_COUNT:
        return ProtocolError(
            f"{server} could not read the request (error 1): most likely its model takes another number of features"
        )
    if code == 2:
        return ModelFailed(f"the model at {server} failed on this request (error 2); the server's log says why")
    if code == 3:
        return Overloaded(f"{server} is overloaded and shed this request (error 3); call less often, or later")
    if code == CLOSING:
        return ServerClosing(f"{server} is closing and did not take this request (error 4)")
    if code == 5:
        return ModelMismatch(f"the model at {server} takes another number of features (error 5)")
    return ProtocolError(f"{server} sent the error {code}, which this client does not know")
