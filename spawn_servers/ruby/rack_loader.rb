# frozen_string_literal: true

# Runs a Rack application for passenger_trio: loads it and serves it. See passenger_trio.rb, and spawn_servers/CONTRACT.md.
#
#     ruby rack_loader.rb

require_relative "passenger_trio"

PassengerTrio::Life.lead("worker") do |path, token|
  life = PassengerTrio::Life
  control = PassengerTrio::Control.new(path, "worker")
  options = control.greet(token)
  lifeline = life.watch(control)
  application = life.reporting(control) { life.interruptible { life.load(control, options, "worker") } }
  application ? life.work(control, lifeline, application, options, false) : 1
end
