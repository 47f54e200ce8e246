"""A Flask application as its tutorial has it; nothing in it knows of passenger_trio."""

from flask import Flask, request

app = Flask(__name__)


@app.route("/")
def hello():
    return "<p>Hello, World!</p>"


@app.route("/greet", methods=["POST"])
def greet():
    return {"greeting": "Hello, " + request.form["name"]}
