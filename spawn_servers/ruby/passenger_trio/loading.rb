# frozen_string_literal: true

# From a config.ru to an application.

module PassengerTrio
  # From options to an application; from an exception to advice.
  module Runtime
    REQUIRED_OPTIONS = {
      "app_root" => String, "startup_file" => String, "threads" => Integer, "socket_dir" => String,
      "socket_name" => String, "server_software" => String, "shutdown_timeout" => Numeric, "name" => String
    }.freeze
    GEMFILES = %w[Gemfile gems.rb].freeze

    class << self
      # Make the interpreter look as if it had been started for the application.
      def prepare(options)
        REQUIRED_OPTIONS.each do |name, kind|
          next if options[name].is_a?(kind)

          raise Unfit.new("loader", "The supervisor and its Ruby loader do not understand each other",
                          "The member #{name.inspect} of the options is missing or of another type.",
                          "Look for an installation of passenger_trio that mixes two versions.")
        end
        ARGV.clear
        # They are pipes, which Ruby buffers by the block; what an application prints is to be seen when it is printed.
        [$stdout, $stderr].each { |stream| stream.sync = true }
        use_bundler(options["app_root"])
      end

      def load_application(options)
        path = options["startup_file"]
        path = File.join(options["app_root"], "config.ru") if path.empty?
        unless File.file?(path)
          raise Unfit.new("configuration", "There is no file #{path}", "The startup file of the application does not exist, or is not a file.",
                          "The application's directory is #{options['app_root']}. Check the name of the startup file.")
        end
        load_rack
        app, = Rack::Builder.parse_file(path)
        return app if app.respond_to?(:call)

        raise Unfit.new("configuration", "#{path} has no Rack application: what it runs cannot be called",
                        "`run` was given #{app.class}. A Rack application is an object with a method `call`.", "Mend the `run` line of #{path}.")
      end

      private

      def use_bundler(root)
        gemfile = ENV["BUNDLE_GEMFILE"] || GEMFILES.map { |name| File.join(root, name) }.find { |path| File.file?(path) }
        return unless gemfile

        ENV["BUNDLE_GEMFILE"] = gemfile
        begin
          require "bundler"
        rescue LoadError
          raise Unfit.new("configuration", "Bundler is not installed for #{ruby}", "The application has a #{File.basename(gemfile)}, which Bundler reads.",
                          "Install it (gem install bundler, or the package ruby-bundler), or choose another Ruby with --ruby.")
        end
        Bundler.setup
      end

      def load_rack
        require "rack"
        require "stringio"
        Rack::Utils # which Rack would load with the first request, in each process anew
      rescue LoadError => e
        raise unless e.path == "rack"

        raise Unfit.new("configuration", "Rack is not installed for #{ruby}", "Ruby #{RUBY_VERSION} finds no gem `rack`, with which a config.ru is read.",
                        "#{how_to_install('rack')} If it is installed for another Ruby, choose that with --ruby.")
      end

      def how_to_install(path)
        gem = path.split("/").first
        gem = "NAME" if gem.nil? || gem.empty?
        return "add `gem #{gem.inspect}` to #{ENV['BUNDLE_GEMFILE']} and run `bundle install`." if ENV["BUNDLE_GEMFILE"]

        "install it with `#{ruby} -S gem install #{gem}`, or from a package of the system."
      end
    end
  end
end
