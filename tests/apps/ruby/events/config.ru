EVENTS = []
PassengerTrio.on_event(:starting_worker_process) { |forked| EVENTS << "starting #{forked}" }
PhusionPassenger.on_event(:starting_request_handler_thread) { EVENTS << "thread" }
PhusionPassenger.on_event(:stopping_worker_process) { File.open(ENV["EVENTS_FILE"], "a") { |file| file.puts("stopping") } }
run ->(_env) { [200, { "content-type" => "text/plain" }, [EVENTS.join(",")]] }
