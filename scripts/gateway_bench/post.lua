-- For wrk: POSTs the file BODY to PATH_OF_URL over and over, with the headers in HEADERS ("Name: value", one a line).
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method, wrk.body, wrk.path = "POST", file:read("*a"), os.getenv("PATH_OF_URL")
file:close()
for name, value in string.gmatch(os.getenv("HEADERS") or "", "([^:\n]+): ([^\n]+)") do
    wrk.headers[name] = value
end

done = function(summary, latency, requests)
    local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
    io.write(string.format("RESULT %.1f %.1f %.1f %d\n", summary.requests / summary.duration * 1e6,
        latency:percentile(50), latency:percentile(99), failed))
end
