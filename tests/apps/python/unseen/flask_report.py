"""Flask: a download whose name is what the user has called it."""

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/report")
def report():
    name = request.args["name"]
    return Response("the report", headers={"Content-Disposition": f'attachment; filename="{name}.txt"'})
