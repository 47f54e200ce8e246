# frozen_string_literal: true

# What every thread of this process is doing, as text, for a person who asks why it hangs (CONTRACT.md 2.34).
#
# The connection watcher calls it while the application runs, loads or hangs. A C extension that never releases Ruby's
# global lock stops that thread, too: then there is no answer, and the supervisor shows what the kernel knows.
#
# Law: nothing here raises.

module PassengerTrio
  module Backtraces
    MAX_FRAMES = 100 # per thread

    class << self
      # The main thread last, and in each stack the newest call last.
      def text
        threads = Thread.list - [Thread.current] + (Thread.current == Thread.main ? [Thread.main] : [])
        threads.sort_by { |thread| thread == Thread.main ? 1 : 0 }.map { |thread| describe(thread) }.join("\n\n")
      rescue StandardError => e
        "the threads cannot be listed: #{e.class}"
      end

      private

      def describe(thread)
        name = thread == Thread.main ? "main thread" : "thread #{thread.name || 'without a name'}"
        frames = thread.backtrace || []
        shown = frames.first(MAX_FRAMES).reverse.map { |frame| "  #{frame}" }
        shown << "  ..." if frames.length > MAX_FRAMES
        PassengerTrio.utf8("#{name} (#{thread.status || 'dead'})\n#{shown.join("\n")}")
      end
    end
  end
end
