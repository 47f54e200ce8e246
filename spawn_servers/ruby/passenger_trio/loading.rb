# frozen_string_literal: true

# From the options to an application: Bundler, Rack, config.ru.
#
# Knows Bundler and Rack::Builder. What a person is told about a failure is in advice.rb.
#
# Law: Bundler is asked before any gem is loaded.

module PassengerTrio
  module Loading
    REQUIRED_OPTIONS = {
      "app_root" => String, "startup_file" => String, "threads" => Integer, "socket_dir" => String,
      "socket_name" => String, "server_software" => String, "shutdown_timeout" => Numeric, "name" => String
    }.freeze
    GEMFILES = %w[Gemfile gems.rb].freeze

    class << self
      # Make the interpreter look as if it had been started for the application.
      #
      # :raises StartupError:
      def prepare(options)
        check_options(options)
        ARGV.clear
        # They are pipes, which Ruby buffers. What an application prints is to appear when it is printed.
        [$stdout, $stderr].each { |stream| stream.sync = true }
        use_bundler(options["app_root"])
      end

      # :raises StartupError: there is no config.ru, or it runs nothing that can be called.
      def load_application(options)
        path = options["startup_file"]
        path = File.join(options["app_root"], "config.ru") if path.empty?
        unless File.file?(path)
          raise StartupError.new(
            "configuration", "There is no file #{path}",
            "The startup file of the application does not exist, or is not a file.",
            "The application's directory is #{options['app_root']}. Check the name of the startup file."
          )
        end
        load_rack
        app, = Rack::Builder.parse_file(path)
        return wrap_application(app) if app.respond_to?(:call)

        raise StartupError.new(
          "configuration", "#{path} has no Rack application: what it runs cannot be called",
          "`run` was given #{app.class}. A Rack application is an object with a method `call`.",
          "Fix the `run` line of #{path}."
        )
      end

      private

      # The application, wrapped if a test harness asks for that: by wrap.rb in the directory HARNESS_WRAPPER.
      def wrap_application(app)
        directory = ENV["HARNESS_WRAPPER"].to_s
        return app if directory.empty?

        require File.join(directory, "wrap.rb")
        PassengerHarness.wrap(app)
      end

      def check_options(options)
        REQUIRED_OPTIONS.each do |name, kind|
          next if options[name].is_a?(kind)

          raise StartupError.new(
            "loader", "The supervisor and its Ruby loader do not understand each other",
            "The member #{name.inspect} of the options is missing or of another type.",
            "Look for an installation of passenger_trio that mixes two versions."
          )
        end
      end

      def use_bundler(root)
        gemfile = ENV["BUNDLE_GEMFILE"] || GEMFILES.map { |name| File.join(root, name) }.find { |path| File.file?(path) }
        return unless gemfile

        ENV["BUNDLE_GEMFILE"] = gemfile
        begin
          require "bundler"
        rescue LoadError
          raise StartupError.new(
            "configuration", "Bundler is not installed for #{Advice.ruby}",
            "The application has a #{File.basename(gemfile)}, which Bundler reads.",
            "Install it (gem install bundler, or the package ruby-bundler), or choose another Ruby with --ruby."
          )
        end
        Bundler.setup
      end

      def load_rack
        require "rack"
        require "stringio"
        Rack::Utils # Rack loads it with the first request, which would be once in each process.
      rescue LoadError => e
        raise unless e.path == "rack"

        raise StartupError.new(
          "configuration", "Rack is not installed for #{Advice.ruby}",
          "Ruby #{RUBY_VERSION} finds no gem `rack`, with which a config.ru is read.",
          "#{Advice.how_to_install('rack')} If it is installed for another Ruby, choose that with --ruby."
        )
      end
    end
  end
end
