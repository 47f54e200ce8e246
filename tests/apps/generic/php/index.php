<?php
if ($_SERVER["REQUEST_URI"] == "/stream") {
    foreach (["one ", "two ", "three"] as $piece) { echo $piece; flush(); usleep(20000); }
    return;
}
echo $_SERVER["REQUEST_METHOD"], " ", $_SERVER["REQUEST_URI"], " ", strlen(file_get_contents("php://input")), " ", $_SERVER["HTTP_X_FORWARDED_FOR"];
