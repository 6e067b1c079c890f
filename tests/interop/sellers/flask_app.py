from flask import Flask, Response, jsonify, request
from offers import CONFIG, EVENTS, PAID_ROUTES, SELLER, announce, register_schemes
from werkzeug.serving import make_server
from x402 import x402ResourceServerSync
from x402.http import FacilitatorConfig, HTTPFacilitatorClientSync
from x402.http.middleware.flask import payment_middleware

app = Flask(__name__)
facilitator = HTTPFacilitatorClientSync(FacilitatorConfig(url=CONFIG["facilitator"]))
payment_middleware(app, PAID_ROUTES, register_schemes(x402ResourceServerSync(facilitator)))


@app.get("/free")
def free():
    return jsonify(free=True)


@app.get("/report")
def report():
    return jsonify(report="ok", seller=SELLER)


@app.get("/dear")
def dear():
    return jsonify(report="dear", seller=SELLER)


@app.get("/several")
def several():
    return jsonify(report="several", seller=SELLER)


@app.get("/fail")
def fail():
    return jsonify(error="the handler failed"), 500


@app.post("/echo")
def echo():
    content_type = request.headers.get("content-type", "application/octet-stream")
    # Set as a header: `mimetype` would add a charset to text types.
    return Response(request.get_data(), headers={"content-type": content_type})


@app.get("/stream")
def stream():
    return Response(iter(EVENTS), headers={"content-type": "text/event-stream"})


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app, threaded=True)
    announce(server.port)
    server.serve_forever()
