# frozen_string_literal: true

# The hooks that an application can register: CONTRACT.md, "Hooks".
#
# Knows the names and the blocks. Who calls a hook, and when, is in loader_process.rb, worker.rb and rack_preloader.rb.

module PassengerTrio
  @hooks = {}

  class << self
    # For applications. Events: +:starting_worker_process+ (its block gets whether the process was forked),
    # +:stopping_worker_process+, +:starting_request_handler_thread+,
    # +:oob_work+ (while the process gets no requests).
    def on_event(name, &block)
      (@hooks[name.to_sym] ||= []) << block
    end

    def call_event(name, *arguments)
      @hooks[name]&.each { |block| block.call(*arguments) }
    end
  end
end

# Applications written for Passenger use this name.
module PhusionPassenger
  class << self
    def on_event(name, &block)
      PassengerTrio.on_event(name, &block)
    end
  end
end
