# What the Ruby loader calls: PassengerHarness.wrap(application).
#
# Rack::Lint, which is Rack's own statement of its specification, checks the application if the
# application's Rack has it. Armed faults are made at their points: see fault_points.py, which
# describes the directory. Nothing here needs more than Ruby 2.6 and Rack.
#
# A finding in the head of a response is recorded, and the application's response is sent as it is.
# One in the body is recorded and ends the response, for Rack::Lint cannot go on behind it.

require "json"

module PassengerHarness
  # Appends findings to the file in HARNESS_LINT, as findings.py does.
  module Findings
    def self.add(error, env)
      path = ENV["HARNESS_LINT"]
      return if path.nil? || path.empty? || !File.exist?(path)

      finding = {
        rule: "rack.lint",
        text: "Rack specification, as Rack::Lint (Rack #{Rack.release}) checks it: #{error.message.to_s[0, 2000]}",
        detail: error.message.to_s[0, 2000],
        request: "#{env['REQUEST_METHOD']} #{env['PATH_INFO']}", request_id: env["HTTP_X_REQUEST_ID"].to_s,
        pid: Process.pid, time: Time.now.to_f
      }
      File.open(path, File::WRONLY | File::APPEND) { |file| file.syswrite(JSON.generate(finding) + "\n") }
    end
  end

  # Claims and makes armed faults, as fault_points.py does.
  module Points
    POLL = 0.005

    def self.at(point, path = "")
      directory = ENV["HARNESS_FAULTS"]
      return if directory.nil? || directory.empty?

      armed = File.join(directory, "armed")
      names = begin
        Dir.children(armed).sort
      rescue SystemCallError
        return # the harness has gone
      end
      names.each do |name|
        next unless name.partition(".").first == point

        begin
          order = JSON.parse(File.read(File.join(armed, name)))
          next unless path.start_with?(order["path"].to_s)

          mark = File.join(directory, "fired", "#{name}.#{Process.pid}")
          File.rename(File.join(armed, name), mark)
        rescue SystemCallError, JSON::ParserError
          next # another process was first, or the harness has taken it back
        end
        return perform(order, mark)
      end
      nil
    end

    def self.armed?
      directory = ENV["HARNESS_FAULTS"]
      return false if directory.nil? || directory.empty?

      !Dir.empty?(File.join(directory, "armed"))
    rescue SystemCallError
      false
    end

    def self.perform(order, mark)
      case order["action"]
      when "kill" then Process.kill("KILL", Process.pid)
      when "stop" then Process.kill("STOP", Process.pid)
      when "exit" then Process.exit!(order["status"])
      when "raise" then raise order["message"]
      when "sleep" then sleep(order["seconds"])
      when "hold", "hang" then sleep(POLL) while File.exist?(mark)
      when "oom"
        taken = "x" * order["size"]
        Process.kill("KILL", Process.pid) if taken
      when "close_stream" then streams.each { |stream| stream.shutdown rescue nil } # rubocop:disable Style/RescueModifier
      when "bad_frame"
        streams.each do |stream|
          stream.write_nonblock("\xff".b * 64) rescue nil # rubocop:disable Style/RescueModifier
          stream.shutdown rescue nil # rubocop:disable Style/RescueModifier
        end
      end
    end

    # The streams from the supervisor: what was accepted has the name of what listens.
    def self.streams
      sockets = ObjectSpace.each_object(BasicSocket).reject(&:closed?)
      listening, others = sockets.partition { |one| one.getsockopt(:SOCKET, :ACCEPTCONN).bool }
      names = listening.map { |one| one.local_address.to_sockaddr }
      others.select { |one| names.include?(one.local_address.to_sockaddr) }
    end
  end

  # The body of a response under a fault: its first piece comes in two, and its last byte alone.
  class BodyWithPoints
    def initialize(body, path)
      @body = body
      @path = path
    end

    def each
      held = nil
      in_body = false
      @body.each do |piece|
        next if piece.empty?

        piece = piece.b
        unless in_body
          in_body = true
          half = piece.bytesize / 2
          yield(half.zero? ? piece : piece.byteslice(0, half))
          Points.at("mid_body", @path)
          piece = half.zero? ? "".b : piece.byteslice(half..-1)
        end
        piece = held + piece if held
        held = piece.empty? ? nil : piece.byteslice(-1, 1)
        rest = piece.byteslice(0, [piece.bytesize - 1, 0].max)
        yield rest unless rest.empty?
      end
      Points.at("before_end", @path)
      yield held if held
    end

    # The server closes what it has sent to the end.
    def close
      Points.at("after_end", @path)
      @body.close if @body.respond_to?(:close)
    end
  end

  # A body whose violations are recorded.
  class CheckedBody
    def initialize(body, env)
      @body = body
      @env = env
    end

    def each(&block)
      @body.each(&block)
    rescue Rack::Lint::LintError => e
      Findings.add(e, @env)
      raise
    end

    def close
      @body.close
    rescue Rack::Lint::LintError => e
      Findings.add(e, @env)
    end

    def respond_to_missing?(name, all = false)
      @body.respond_to?(name, all)
    end

    def method_missing(name, *arguments, &block)
      return super unless @body.respond_to?(name)

      @body.public_send(name, *arguments, &block)
    end
  end

  # The application.
  class Wrapper
    def initialize(app)
      @app = app
      @lint = defined?(Rack::Lint) && ENV["HARNESS_LINT"].to_s != ""
    end

    def call(env)
      path = env["PATH_INFO"].to_s
      begun = Time.now.to_f
      raised = nil
      Points.at("head", path)
      status, headers, body = @lint ? checked(env) : @app.call(env)
      body = BodyWithPoints.new(body, path) if Points.armed? && body.respond_to?(:each)
      [status, headers, body]
    rescue Exception => e # rubocop:disable Lint/RescueException
      raised = e
      raise
    ensure
      note(env, begun, raised)
    end

    private

    # The time of the application's call, as times.py notes it; a body that is made later is not in it.
    def note(env, begun, raised)
      path = ENV["HARNESS_TIMES"].to_s
      return if path.empty? || !File.exist?(path)

      line = { request_id: env["HTTP_X_REQUEST_ID"].to_s, begun: begun, ended: Time.now.to_f, pid: Process.pid,
               raised: raised ? "#{raised.class}: #{raised.message}"[0, 500] : "" }
      File.open(path, File::WRONLY | File::APPEND) { |file| file.syswrite(JSON.generate(line) + "\n") }
    end

    def checked(env)
      answer = nil
      keep = lambda do |given|
        answer = @app.call(given)
        answer
      end
      status, headers, body = Rack::Lint.new(keep).call(env)
      [status, headers, body.respond_to?(:each) ? CheckedBody.new(body, env) : body]
    rescue Rack::Lint::LintError => e
      Findings.add(e, env)
      raise if answer.nil?

      answer
    end
  end

  def self.wrap(application)
    Points.at("load")
    if ENV["HARNESS_FAULTS"].to_s != ""
      PassengerTrio.on_event(:starting_worker_process) { |_forked| Points.at("fork") }
    end
    Wrapper.new(application)
  end
end
