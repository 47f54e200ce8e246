import threading
import time

threading.Thread(target=time.sleep, args=(60,)).start()
raise RuntimeError("with a thread running")
