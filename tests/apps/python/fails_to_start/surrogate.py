raise ValueError("a file name in another encoding: \udcff, and a NUL: \0")
