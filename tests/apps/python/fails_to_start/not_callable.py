application = {"a": "dict"}
