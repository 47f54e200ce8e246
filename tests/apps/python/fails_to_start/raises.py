def inner():
    raise ZeroDivisionError("deep inside")


inner()
