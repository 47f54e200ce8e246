# frozen_string_literal: true

# What the last steps of every worker are.

module PassengerTrio
  # The order of a process's last things, the same for every worker.
  module Life
    class << self
      # Connect, and run the block with the control connection and the options; its value is the exit status.
      def lead(role)
        path = ENV.delete("PASSENGER_TRIO_SPAWN_SOCKET")
        token = ENV.delete("PASSENGER_TRIO_SPAWN_TOKEN")
        abort "This program is started by passenger_trio, not by hand." unless path && token
        # The first hook to be registered is the last to run.
        at_exit { @lifeline.part if @lifeline }
        status = 0
        Thread.handle_interrupt(Leave => :never) do
          begin
            status = yield path, token
          rescue Leave
            status = 0
          rescue Hangup
            status = 1
          end
          @lifeline.end if @lifeline
        end
        exit status
      end

      def watch(control)
        @lifeline = Lifeline.new(control).begin
      end

      def disown
        @lifeline = nil
      end

      # The application's own code runs interruptible.
      def interruptible(&block)
        Thread.handle_interrupt(Leave => :immediate, &block)
      end

      # Load, and explain what went wrong. The value of the block, or nil when the error was reported.
      def reporting(control)
        yield
      rescue Leave
        raise
      rescue Exception => e # rubocop:disable Lint/RescueException
        # Where Leave comes upon another's cleaning up (a lock of a library's, say) that can fail, and its error takes Leave's place.
        raise Leave if @lifeline.interrupted

        @lifeline.end
        control.tell("error", **Runtime.explain(e))
        PassengerTrio.say(Runtime.backtrace_of(e))
        nil
      end

      def load(control, options, role)
        application = nil
        control.step("prepare_runtime") do
          Runtime.prepare(options)
          name_process(options, role)
        end
        control.step("load_application") { application = Runtime.load_application(options); yield if block_given? }
        application
      end

      # Listen, serve to the end. The exit status.
      def work(control, lifeline, application, options, forked)
        worker = reporting(control) do
          interruptible do
            unless forked
              PassengerTrio.call_event(:starting_worker_process, false)
            end
            Worker.new(application, options).tap { |made| control.step("listen") { made.listen } }
          end
        end
        return 1 unless worker

        begin
          lifeline.timeout = options["shutdown_timeout"]
          lifeline.worker = worker
          interruptible do
            control.tell("ready", sockets: worker.sockets, application: options["name"])
            worker.run
          end
        ensure
          if worker.ours?
            worker.stop
            stopping
          end
        end
        0
      end

      def name_process(options, role)
        Process.setproctitle("passenger_trio: #{role == 'preloader' ? 'preloader of ' : ''}#{options['name']}")
      rescue NotImplementedError, StandardError
        nil
      end

      private

      def stopping
        PassengerTrio.call_event(:stopping_worker_process)
      rescue StandardError => e
        PassengerTrio.say(Runtime.backtrace_of(e))
      end
    end
  end
end
