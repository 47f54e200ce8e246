# frozen_string_literal: true

# Runs a Rack application for passenger_trio: loads it and serves it.
#
#     ruby rack_loader.rb
#
# Read ../CONTRACT.md first, then passenger_trio.rb, which states the reading order of the other files.

require_relative "passenger_trio"

PassengerTrio::LoaderProcess.run do |path, token|
  process = PassengerTrio::LoaderProcess
  control = PassengerTrio::ControlConnection.new(path, "worker")
  options = control.shake_hands(token)
  connection_watcher = process.start_connection_watcher(control)
  application = process.report_errors(control) do
    process.interruptible { process.load_application(control, options, "worker") }
  end
  application ? process.serve(control, connection_watcher, application, options, false) : 1
end
