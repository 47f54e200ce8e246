# frozen_string_literal: true

# The connection watcher: a thread that watches the control connection, whose end ends this process, and the signals.
#
# Knows the control connection, the process's signals and how to interrupt the main thread. It knows the worker only as
# something that can be stopped, and never looks at a session.
#
# Laws:
#
# * After the supervisor's end the process is gone within EXIT_TIMEOUT. The main thread is interrupted until it runs the
#   exit hooks; then this thread ends the process, whatever is left.
# * Nothing is interrupted once the main thread has finished its work (stop_interrupting).
# * A signal handler takes no lock: it writes a byte to the wake-up pipe.
# * A second SIGTERM ends the process at once.
#
# This thread needs Ruby's global lock. CRuby takes the lock from a computing thread after 100 ms. A C extension that
# never releases the lock stops this thread, too.

module PassengerTrio
  class ConnectionWatcher
    EXIT_TIMEOUT = 0.7 # seconds from the supervisor's end to ours; the contract allows 1
    INTERRUPT_INTERVAL = 0.05 # seconds

    attr_writer :worker # is stopped by "shutdown"; without a worker, the main thread is interrupted
    attr_writer :timeout # seconds that the process has to end after "shutdown"
    attr_reader :wakeup # readable when a signal came
    attr_reader :interrupted # whether the main thread was interrupted

    def initialize(control)
      @control = control
      @wakeup, @wakeup_writer = IO.pipe
      PassengerTrio.close_on_fork(@wakeup, @wakeup_writer)
      @lock = Mutex.new
      @interruptible = true
      @sigterm_count = 0
      @timeout = 0
      @plan = nil # a StopPlan, once the worker is told to stop
      @exit_deadline = nil # set when the exit hooks are all that is waited for
    end

    # Called in the main thread.
    def start
      PassengerTrio.handle_signal("TERM") { wake("T") }
      # A handler, because programs that the application starts would inherit "ignored".
      PassengerTrio.handle_signal("INT") { nil }
      @thread = Thread.new { watch }
      self
    end

    # End the thread. A preloader watches by itself, and has one thread when it forks.
    def stop_thread
      @released = true
      wake("0")
      @thread.join
      @released = false
    end

    # Make room for another watcher in this process: a preloader goes on as a worker.
    def close
      PassengerTrio.restore_signal_handlers
      [@wakeup, @wakeup_writer].each { |io| PassengerTrio.close_quietly(io) }
    end

    # The main thread has finished its work: interrupt it no more. Called with interrupts masked.
    def stop_interrupting
      @lock.synchronize { @interruptible = false }
      Thread.handle_interrupt(ProcessStopping => :immediate) { Thread.pass }
    rescue ProcessStopping
      nil
    end

    # The last of all exit hooks. Ruby would wait for threads of the application that do not end.
    def exit_in_time
      return unless @exit_deadline

      others = Thread.list - [Thread.current, @thread]
      others.each(&:kill)
      others.each { |thread| thread.join([@exit_deadline - PassengerTrio.now, 0].max) }
      exit!(0) if others.any?(&:alive?)
    end

    # Wake up whoever waits for +wakeup+. Called by signal handlers.
    def wake(byte)
      @wakeup_writer.write_nonblock(byte, exception: false)
    rescue SystemCallError, IOError
      nil
    end

    # The bytes given to +wake+ since the last call.
    def signals
      bytes = @wakeup.read_nonblock(4096, exception: false)
      bytes.is_a?(String) ? bytes : ""
    end

    private

    def watch
      Thread.current.report_on_exception = false
      @control.pending.each { |message| handle_message(message) }
      until @released
        ready, = IO.select([@control.io, @wakeup], nil, nil, @plan&.seconds_left(PassengerTrio.now))
        @plan&.run_due_steps(PassengerTrio.now)
        next unless ready

        signals.each_char { |byte| handle_wakeup(byte) } if ready.include?(@wakeup)
        @control.read_messages.each { |message| handle_message(message) } if ready.include?(@control.io)
      end
    rescue ControlConnectionLost
      end_process
    rescue Exception => e # rubocop:disable Lint/RescueException
      # A bug of ours. A worker without a watcher must not live on.
      PassengerTrio.log(Advice.backtrace_of(e))
      end_process
    end

    def handle_message(message)
      case message["type"]
      when "shutdown"
        @timeout = [@timeout, message["within"] || @timeout].min if @timeout
        stop
      when "backtrace" then @control.answer_backtrace(message)
      end
    end

    def handle_wakeup(byte)
      return unless byte == "T"

      @sigterm_count += 1
      exit!(143) if @sigterm_count > 1
      stop
    end

    def stop
      return interrupt unless @worker

      @plan ||= StopPlan.new(
        @timeout, PassengerTrio.now,
        cancel: -> { @worker.cancel(ProcessStopping) || interrupt },
        give_up: -> { @worker.kill_threads || interrupt },
        exit_by: lambda do |deadline|
          @exit_deadline = deadline
          interrupt
        end
      )
      @worker.stop
    end

    # Raise an exception in the main thread. It also ends a sleep, a wait for a lock, or a slow query.
    def interrupt
      @lock.synchronize do
        next unless @interruptible

        @interrupted = true
        Thread.main.raise(ProcessStopping)
      end
    end

    # The supervisor is gone.
    def end_process
      @exit_deadline = PassengerTrio.now + EXIT_TIMEOUT
      if @worker
        @worker.stop
        @worker.kill_threads
      end
      while PassengerTrio.now < @exit_deadline
        interrupt # An application may rescue Exception and go on, so more than once.
        sleep INTERRUPT_INTERVAL
      end
      exit!(0)
    end
  end
end
