# frozen_string_literal: true

# The thread that watches the control connection, and the process's signals.

module PassengerTrio
  # Watches the control connection and the signals, in a thread of its own, beside an application that may do anything.
  class Lifeline
    attr_writer :worker # told to stop, once there is one; before that, to stop is to leave
    attr_writer :timeout # seconds that the process has to end when it is told to
    attr_reader :bell

    def initialize(control)
      @control = control
      @bell, @alarm = IO.pipe
      PassengerTrio.own(@bell, @alarm)
      @lock = Mutex.new
      @interruptible = true
      @terms = 0
      @timeout = 0
      @due = nil # once told to stop, what is to be done when: [time, block]
      @ends = nil # when the supervisor is gone, or our time is over: the moment in which we are gone, too
    end

    # Called in the main thread.
    def begin
      PassengerTrio.take_signal("TERM") { ring("T") }
      # Not ignored: that would be inherited by the programs that the application starts.
      PassengerTrio.take_signal("INT") { nil }
      @thread = Thread.new { watch }
      self
    end

    # End the thread: the preloader watches for itself, and has one thread when it forks.
    def release
      @released = true
      ring("0")
      @thread.join
      @released = false
    end

    # Another one takes its place, in this process: a preloader goes on as a worker.
    def give_way
      PassengerTrio.give_back_signals
      [@bell, @alarm].each { |io| PassengerTrio.let_go(io) }
    end

    # Whether the main thread was told to leave what it does.
    attr_reader :interrupted

    # The main thread has done what there was to do, and leaves: nothing interrupts it from here. Called with interrupts masked.
    def end
      @lock.synchronize { @interruptible = false }
      Thread.handle_interrupt(Leave => :immediate) { Thread.pass }
    rescue Leave
      nil
    end

    # The last of all exit hooks. Ruby would wait for threads of the application's that do not want to end.
    def part
      return unless @ends

      others = Thread.list - [Thread.current, @thread]
      others.each(&:kill)
      others.each { |thread| thread.join([@ends - PassengerTrio.now, 0].max) }
      exit!(0) if others.any?(&:alive?)
    end

    # From a signal handler: no locks here.
    def ring(byte)
      @alarm.write_nonblock(byte, exception: false)
    rescue SystemCallError, IOError
      nil
    end

    # The signals that came since the last call.
    def signals
      bytes = @bell.read_nonblock(4096, exception: false)
      bytes.is_a?(String) ? bytes : ""
    end

    private

    def watch
      Thread.current.report_on_exception = false
      @control.pending.each { |message| heed(message) }
      until @released
        ready, = IO.select([@control.io, @bell], nil, nil, patience)
        heed_time
        next unless ready

        signals.each_char { |byte| heed_signal(byte) } if ready.include?(@bell)
        @control.read.each { |message| heed(message) } if ready.include?(@control.io)
      end
    rescue Hangup
      farewell
    rescue Exception => e # rubocop:disable Lint/RescueException
      # A bug of ours. A worker that nobody watches must not live on.
      PassengerTrio.say(Runtime.backtrace_of(e))
      farewell
    end

    def heed(message)
      stop if message["type"] == "shutdown"
    end

    def heed_signal(byte)
      return unless byte == "T"

      @terms += 1
      exit!(143) if @terms > 1
      stop
    end

    def stop
      return interrupt unless @worker

      @due ||= plan(@worker, PassengerTrio.now)
      @worker.stop
    end

    # The shares of a stop, as the contract has them: sessions finish, are cancelled, are given up; then come the exit hooks.
    def plan(worker, now)
      reserved = [@timeout / 2.0, MOST_RESERVED].min
      cancel = now + @timeout - reserved
      [
        [cancel, -> { worker.cancel(Leave) || interrupt }],
        [cancel + reserved / 3, -> { worker.interrupt || interrupt }],
        [cancel + reserved * 2 / 3, -> { leave(now + @timeout) }]
      ]
    end

    def patience
      return if @due.nil? || @due.empty?

      [@due.first.first - PassengerTrio.now, 0].max
    end

    def heed_time
      @due.shift.last.call while @due && !@due.empty? && @due.first.first <= PassengerTrio.now
    end

    # Only the exit hooks are still waited for.
    def leave(ends)
      @ends = ends
      interrupt
    end

    # An exception in that very thread also ends what it waits for: a sleep, a lock, a slow database.
    def interrupt
      @lock.synchronize do
        next unless @interruptible

        @interrupted = true
        Thread.main.raise(Leave)
      end
    end

    # The supervisor is gone. From here it is a race between the exit hooks and the last second.
    def farewell
      @ends = PassengerTrio.now + LAST_SECOND
      if @worker
        @worker.stop
        @worker.interrupt
      end
      while PassengerTrio.now < @ends
        interrupt # again and again: an application may rescue Exception and go on
        sleep 0.05
      end
      exit!(0)
    end
  end
end
