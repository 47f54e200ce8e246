# frozen_string_literal: true

# What applications may call.

module PassengerTrio
  @events = Hash.new { |events, name| events[name] = [] }

  class << self
    # For applications: +:starting_worker_process+ (called with whether the process was forked), +:stopping_worker_process+,
    # +:starting_request_handler_thread+.
    def on_event(name, &block)
      @events[name.to_sym] << block
    end

    def call_event(name, *arguments)
      @events[name].each { |block| block.call(*arguments) }
    end
  end
end

# Applications written for Passenger say this name.
module PhusionPassenger
  class << self
    def on_event(name, &block)
      PassengerTrio.on_event(name, &block)
    end
  end
end
