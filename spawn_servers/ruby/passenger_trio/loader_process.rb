# frozen_string_literal: true

# The life of a loader's process: connect, load, serve, end. rack_loader.rb and rack_preloader.rb put these parts together.
#
# Knows the order of the parts, what is interruptible, and the exit status.
#
# Laws:
#
# * ProcessStopping is masked, and let through only where the application's code runs.
# * Exit status: 0 after a stop, 1 after a start that failed.
# * exit_in_time is the last exit hook to run, because it is registered first.

module PassengerTrio
  module LoaderProcess
    class << self
      # Take the socket's path and the token from the environment and run the block with them. Its value is the exit status.
      def run
        path = ENV.delete("PASSENGER_TRIO_SPAWN_SOCKET")
        token = ENV.delete("PASSENGER_TRIO_SPAWN_TOKEN")
        abort "passenger_trio starts this program; do not start it by hand" unless path && token
        at_exit { @connection_watcher.exit_in_time if @connection_watcher }
        status = 0
        Thread.handle_interrupt(ProcessStopping => :never) do
          begin
            status = yield path, token
          rescue ProcessStopping
            status = 0
          rescue ControlConnectionLost
            status = 1
          end
          @connection_watcher.stop_interrupting if @connection_watcher
        end
        exit status
      end

      def start_connection_watcher(control)
        @connection_watcher = ConnectionWatcher.new(control).start
      end

      # In a forked process: the watcher is its parent's.
      def forget_connection_watcher
        @connection_watcher = nil
      end

      # Run code of the application, which ProcessStopping may interrupt.
      def interruptible(&block)
        Thread.handle_interrupt(ProcessStopping => :immediate, &block)
      end

      # The value of the block; nil after an exception, which is reported to the supervisor.
      def report_errors(control)
        yield
      rescue ProcessStopping
        raise
      rescue Exception => e # rubocop:disable Lint/RescueException
        # If ProcessStopping interrupts a clean-up (a library's lock, say), that can fail, and its error replaces ProcessStopping.
        raise ProcessStopping if @connection_watcher.interrupted

        @connection_watcher.stop_interrupting
        # The supervisor prints the backtrace, once.
        PassengerTrio.log(Advice.backtrace_of(e)) unless control.send_message("error", **Advice.explain(e))
        nil
      end

      # The application. The block runs within the step "load_application".
      def load_application(control, options, role)
        application = nil
        control.step("prepare_runtime") do
          Loading.prepare(options)
          set_process_title(options, role)
        end
        control.step("load_application") do
          application = Loading.load_application(options)
          yield if block_given?
        end
        application
      end

      # Listen, and serve until the process is to end. Returns the exit status.
      def serve(control, connection_watcher, application, options, forked)
        worker = report_errors(control) do
          interruptible do
            # A forked process has called it in the step "after_fork".
            PassengerTrio.call_event(:starting_worker_process, false) unless forked
            Worker.new(application, options).tap { |made| control.step("listen") { made.listen } }
          end
        end
        return 1 unless worker

        begin
          connection_watcher.timeout = options["shutdown_timeout"]
          connection_watcher.worker = worker
          interruptible do
            control.send_message("ready", sockets: worker.sockets, application: options["name"])
            worker.run
          end
        ensure
          if worker.ours?
            worker.stop
            call_stopping_event
          end
        end
        0
      end

      def set_process_title(options, role)
        Process.setproctitle("passenger_trio: #{role == 'preloader' ? 'preloader of ' : ''}#{options['name']}")
      rescue NotImplementedError, StandardError
        nil
      end

      private

      def call_stopping_event
        PassengerTrio.call_event(:stopping_worker_process)
      rescue StandardError => e
        PassengerTrio.log(Advice.backtrace_of(e))
      end
    end
  end
end
