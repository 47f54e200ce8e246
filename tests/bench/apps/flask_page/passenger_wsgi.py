import time

from flask import Flask, render_template

app = application = Flask(__name__)


@app.get("/")
def articles():
    # One millisecond of work, of the processor and not of the clock.
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass
    return render_template("articles.html", articles=range(20))
