# frozen_string_literal: true

# Forking workers.

module PassengerTrio
  # +run+ returns in the preloader when it is to end (:end) or to be a worker itself (:serve), and once in each forked process (:forked;
  # +token+ is that with which it connects): a worker has climbed out of this loop before it does anything else.
  class Preloader
    LEAVE_TIME = 0.3 # seconds for the last workers to end, when the supervisor is gone

    attr_reader :token

    # :param hazards: what the application holds.
    def initialize(control, lifeline, hazards)
      @control = control
      @lifeline = lifeline
      @children = []
      # What it has is in use by its workers, and it must see to it when the last of them has ended.
      @has_hooks = hazards.any? { |hazard| %w[exit_hook process].include?(hazard[:kind]) }
      @told_to_end = false
    end

    def run
      watch_children
      messages = @control.pending
      loop do
        messages.each do |message|
          case message["type"]
          when "shutdown" then @told_to_end = true
          when "serve" then return :serve
          when "fork"
            next if @told_to_end

            @token = message["token"].to_s
            return :forked if fork_worker(@token)
          end
        end
        messages = []
        return :end if @told_to_end && !(@has_hooks && children?)

        ready, = IO.select([@control.io, @lifeline.bell])
        if ready.include?(@lifeline.bell) && @lifeline.signals.include?("T")
          return :end if @told_to_end

          @told_to_end = true
        end
        messages = @control.read if ready.include?(@control.io)
        reap
      end
    rescue Hangup
      wait_for_children
      :end
    end

    def children?
      !@children.empty?
    end

    private

    # The supervisor is gone, and so are they, soon.
    def wait_for_children
      till = PassengerTrio.now + LEAVE_TIME
      while @has_hooks && children? && PassengerTrio.now < till
        sleep 0.01
        reap
      end
    end

    # Only to be woken: what the signal does is to write a byte. An application that has its own handler keeps it.
    def watch_children
      theirs = trap("CHLD", "DEFAULT")
      if theirs.is_a?(Proc)
        trap("CHLD", theirs)
      else
        lifeline = @lifeline
        PassengerTrio.take_signal("CHLD") { lifeline.ring("C") }
      end
    end

    # One by one: a child that the application started while it was loaded is the application's to wait for.
    def reap
      @children.reject! do |pid|
        begin
          found, status = Process.waitpid2(pid, Process::WNOHANG)
        rescue Errno::ECHILD
          found, status = pid, 0 # The application waits for every child there is, and was faster.
        end
        @control.tell("child_exited", pid: pid, status: status.to_i) if found
        found
      end
    end

    # True in the child.
    def fork_worker(token)
      output = @control.descriptors.shift
      return refuse(token, "no descriptor came with the message") if output.nil?

      begin
        pid = Process.fork # flushes Ruby's own buffers before
      rescue SystemCallError => e
        return refuse(token, "fork: #{e.message}")
      end
      return become_worker(output) if pid.nil?

      begin
        Process.setpgid(pid, pid) # As the child does: whoever of us is first.
      rescue SystemCallError
        nil
      end
      @children << pid
      @control.tell("forked", token: token, pid: pid)
      false
    ensure
      output.close if output && !output.closed?
    end

    def refuse(token, problem)
      @control.tell("fork_failed", token: token, problem: problem)
      false
    end

    def become_worker(output)
      Process.setpgid(0, 0)
      [STDOUT, STDERR].each do |stream|
        stream.reopen(output)
        stream.sync = true
      end
      @control.descriptors.each(&:close)
      true # Two workers must not draw the same numbers: Ruby sees to its generator when it forks, and so do SecureRandom and OpenSSL.
    end
  end

  # What is garbage goes, and what stays becomes old: the collector does not look at it (which is to write to it) in a minor collection.
  def self.share_memory
    if Process.respond_to?(:warmup)
      Process.warmup # Ruby 3.3: collects, promotes, compacts, gives memory back
    else
      4.times { GC.start }
      GC.compact if GC.respond_to?(:compact) && RUBY_VERSION >= "3.0"
    end
  rescue NotImplementedError
    nil # no compaction on this platform
  end
end
