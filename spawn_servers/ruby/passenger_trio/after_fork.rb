# frozen_string_literal: true

# What a process must not pass on to the processes that are forked from it, by the application or by our preloader.
#
# Knows the descriptors and signal handlers that the other files registered, and nothing of what they are for.
#
# Laws:
#
# * A forked process closes our descriptors before anything else. We close a stream to say "this response is incomplete";
#   a copy in a child would keep it open.
# * A forked process has the signal handlers that it would have without us. With ours, SIGTERM would not end it.

module PassengerTrio
  @close_on_fork = {}
  @signal_handlers = {}

  class << self
    # JRuby does not fork. There, this table would only be one that threads change at the same time, which its Hash does not allow.
    if Process.respond_to?(:fork)
      def close_on_fork(*ios)
        ios.each { |io| @close_on_fork[io] = true }
      end
    else
      def close_on_fork(*) end
    end

    def keep_open_on_fork(io)
      @close_on_fork.delete(io)
    end

    def close_quietly(io)
      @close_on_fork.delete(io)
      io.close unless io.closed?
    rescue SystemCallError, IOError
      nil
    end

    # Handle a signal in this process only.
    def handle_signal(name, &handler)
      @signal_handlers[name] = [handler, trap(name, &handler)]
    end

    # Called in every forked process, before anything else.
    def after_fork_in_child
      @close_on_fork.keys.each { |io| close_quietly(io) }
      restore_signal_handlers
      LoaderProcess.forget_connection_watcher
    end

    # Put back the handlers that ours replaced, unless the application has replaced ours.
    def restore_signal_handlers
      @signal_handlers.each do |name, (ours, previous)|
        current = trap(name, previous || "DEFAULT")
        trap(name, current) unless current.equal?(ours)
      end
      @signal_handlers.clear
    end
  end

  # Since Ruby 3.1 every fork calls Process._fork. Older Rubies have three methods that fork.
  module ForkHook
    if Process.respond_to?(:_fork)
      def _fork
        pid = super
        PassengerTrio.after_fork_in_child if pid.zero?
        pid
      end
      Process.singleton_class.prepend(self)
    elsif Process.respond_to?(:fork)
      def fork
        if block_given?
          super() do
            PassengerTrio.after_fork_in_child
            yield
          end
        else
          pid = super()
          PassengerTrio.after_fork_in_child if pid.nil?
          pid
        end
      end
      [Process.singleton_class, Kernel.singleton_class].each { |place| place.prepend(self) }
      Object.prepend(dup.tap { |copy| copy.__send__(:private, :fork) })
    end
  end
end
