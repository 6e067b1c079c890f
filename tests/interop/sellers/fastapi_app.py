import socket

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from offers import CONFIG, EVENTS, PAID_ROUTES, SELLER, announce, register_schemes
from x402 import x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.http.middleware.fastapi import payment_middleware

app = FastAPI()
facilitator = HTTPFacilitatorClient(FacilitatorConfig(url=CONFIG["facilitator"]))
app.middleware("http")(
    payment_middleware(PAID_ROUTES, register_schemes(x402ResourceServer(facilitator)))
)


@app.get("/free")
async def free():
    return {"free": True}


@app.get("/report")
async def report():
    return {"report": "ok", "seller": SELLER}


@app.get("/dear")
async def dear():
    return {"report": "dear", "seller": SELLER}


@app.get("/several")
async def several():
    return {"report": "several", "seller": SELLER}


@app.get("/fail")
async def fail():
    return JSONResponse({"error": "the handler failed"}, status_code=500)


@app.post("/echo")
async def echo(request: Request):
    content_type = request.headers.get("content-type", "application/octet-stream")
    # Set as a header: `media_type` would add a charset to text types.
    return Response(await request.body(), headers={"content-type": content_type})


@app.get("/stream")
async def stream():
    return StreamingResponse(iter(EVENTS), headers={"content-type": "text/event-stream"})


if __name__ == "__main__":
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    announce(listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="info")).run(sockets=[listener])
