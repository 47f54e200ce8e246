DEEP = "from deep down"
