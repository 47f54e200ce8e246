# frozen_string_literal: true

# When a stopping worker does what: CONTRACT.md, part "Stopping".
#
# Knows the shares of the shutdown timeout. What each step does is given by connection_watcher.rb.
#
# Law: a session that never ends costs no other session its time, and the exit hooks keep their share.

module PassengerTrio
  class StopPlan
    MAX_RESERVE = 15.0 # seconds, at most, that are kept for what follows the sessions

    # :param timeout: seconds from +now+ until the process must be gone.
    # :param cancel: called when the sessions that still run are to be cancelled.
    # :param give_up: called when those that run even then are to be given up.
    # :param exit_by: called with the deadline for the exit hooks.
    def initialize(timeout, now, cancel:, give_up:, exit_by:)
      reserve = [timeout / 2.0, MAX_RESERVE].min
      cancel_at = now + timeout - reserve
      @steps = [
        [cancel_at, cancel],
        [cancel_at + reserve / 3, give_up],
        [cancel_at + reserve * 2 / 3, -> { exit_by.call(now + timeout) }]
      ]
    end

    # Seconds until the next step is due; nil: there is none.
    def seconds_left(now)
      @steps.empty? ? nil : [@steps.first.first - now, 0].max
    end

    def run_due_steps(now)
      @steps.shift.last.call while !@steps.empty? && @steps.first.first <= now
    end
  end
end
