# frozen_string_literal: true

# The preloader's loop: it forks workers of an application that is loaded. Used by rack_preloader.rb.
#
# Knows the supervisor's orders, the preloader's children, and output pipes. What a forked worker does afterwards is in
# rack_preloader.rb: the loop has returned by then.
#
# Laws:
#
# * It runs in the main thread, and that is the only thread when it forks.
# * While it has a hook or a process that its workers use, it waits for the last of them before it ends on "shutdown".
# * It reaps the processes that it forked, and no others: the application waits for its own.

module PassengerTrio
  class Preloader
    LAST_WORKERS_TIMEOUT = 0.3 # seconds for the last workers to end, when the supervisor is gone
    REAP_INTERVAL = 0.01 # seconds, meanwhile

    attr_reader :token # with which the forked worker connects

    # :param hazards: of the application.
    def initialize(control, connection_watcher, hazards)
      @control = control
      @connection_watcher = connection_watcher
      @children = []
      @waits_for_workers = hazards.any? { |hazard| %w[exit_hook process].include?(hazard[:kind]) }
      @shutting_down = false
    end

    # Returns, in the preloader, +:end+, or +:serve+ if it is to go on as a worker; in each forked process +:forked+.
    def run
      handle_sigchld
      messages = @control.pending
      loop do
        messages.each do |message|
          case message["type"]
          when "shutdown" then @shutting_down = true
          when "serve" then return :serve
          when "backtrace" then @control.answer_backtrace(message)
          when "fork"
            next if @shutting_down

            @token = message["token"].to_s
            return :forked if fork_worker(@token)
          end
        end
        return :end if @shutting_down && !(@waits_for_workers && children?)

        messages = wait
        return :end if messages.nil?

        reap
      end
    rescue ControlConnectionLost
      wait_for_last_workers
      :end
    end

    def children?
      !@children.empty?
    end

    private

    # Wait for messages or a signal. Returns the messages; nil after a second order to end.
    def wait
      ready, = IO.select([@control.io, @connection_watcher.wakeup])
      if ready.include?(@connection_watcher.wakeup) && @connection_watcher.signals.include?("T")
        return if @shutting_down

        @shutting_down = true
      end
      ready.include?(@control.io) ? @control.read_messages : []
    end

    # The supervisor is gone, and the workers will be soon.
    def wait_for_last_workers
      deadline = PassengerTrio.now + LAST_WORKERS_TIMEOUT
      while @waits_for_workers && children? && PassengerTrio.now < deadline
        sleep REAP_INTERVAL
        reap
      end
    end

    # SIGCHLD only wakes up the loop. If the application has a handler of its own, that stays.
    def handle_sigchld
      previous = trap("CHLD", "DEFAULT")
      if previous.is_a?(Proc)
        trap("CHLD", previous)
      else
        connection_watcher = @connection_watcher
        PassengerTrio.handle_signal("CHLD") { connection_watcher.wake("C") }
      end
    end

    def reap
      @children.reject! do |pid|
        begin
          ended, status = Process.waitpid2(pid, Process::WNOHANG)
        rescue Errno::ECHILD
          ended, status = pid, 0 # The application waits for all children, and was faster.
        end
        @control.send_message("child_exited", pid: pid, status: status.to_i) if ended
        ended
      end
    end

    # True in the forked process.
    def fork_worker(token)
      output = @control.descriptors.shift
      return report_failure(token, "no descriptor came with the message") if output.nil?

      begin
        pid = Process.fork # flushes Ruby's own buffers first; where the kernel says EAGAIN, it tries again each second
      rescue SystemCallError => e
        return report_failure(token, "fork: #{e.message}")
      end
      return become_worker(output) if pid.nil?

      begin
        Process.setpgid(pid, pid) # The child does it, too: whoever comes first.
      rescue SystemCallError
        nil
      end
      @children << pid
      @control.send_message("forked", token: token, pid: pid)
      false
    ensure
      output.close if output && !output.closed?
    end

    def report_failure(token, problem)
      @control.send_message("fork_failed", token: token, problem: problem)
      false
    end

    # Ruby seeds its random numbers anew when it forks, and so do SecureRandom and OpenSSL.
    def become_worker(output)
      Process.setpgid(0, 0)
      [STDOUT, STDERR].each do |stream|
        stream.reopen(output)
        stream.sync = true
      end
      @control.descriptors.each(&:close)
      true
    end
  end

  # Collect garbage, and make what is left old: minor collections then neither look at it nor write to it, so its pages stay
  # shared with the forked workers.
  def self.prepare_shared_memory
    if Process.respond_to?(:warmup)
      Process.warmup # Ruby 3.3: collects, promotes, compacts, returns memory
    else
      4.times { GC.start }
      GC.compact if GC.respond_to?(:compact) && RUBY_VERSION >= "3.0"
    end
  rescue NotImplementedError
    nil # This platform has no compaction.
  end
end
