-- For wrk: POSTs one row of random features as JSON, another one each time. KIND=fastapi or mlserver, FEATURES=N.
local features = tonumber(os.getenv("FEATURES") or "16")
local shape = os.getenv("KIND") == "mlserver"
    and '{"inputs":[{"name":"input","shape":[1,%d],"datatype":"FP32","data":[%s]}]}'
    or '{"rows":[[%s]]}'
local path = os.getenv("KIND") == "mlserver" and "/v2/models/model/infer" or "/predict"

request = function()
    local row = {}
    for feature = 1, features do
        row[feature] = string.format("%.4f", math.random() * 6 - 3)
    end
    local values = table.concat(row, ",")
    local body = os.getenv("KIND") == "mlserver" and string.format(shape, features, values) or string.format(shape, values)
    return wrk.format("POST", path, { ["Content-Type"] = "application/json" }, body)
end

done = function(summary, latency, requests)
    local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    io.write(string.format("RESULT %.1f %.1f %.1f %.1f %d\n", summary.requests / summary.duration * 1e6,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9), failed))
end
