# frozen_string_literal: true

# One request and its response.

module PassengerTrio
  # One request and its response.
  class Session
    # Status -> the front of a response head; as Rack calls it.
    FRONTS = Hash.new do |fronts, code|
      fronts[code] = "#{code}\0#{Rack::Utils::HTTP_STATUS_CODES[code]}\0".b.freeze
    end
    NO_BODY = { 204 => true, 304 => true }.freeze
    # Names of these lengths may be content-length, transfer-encoding or x-passenger-request-oob-work: the others are spared a look.
    SPECIAL_SIZES = { 14 => true, 17 => true, 28 => true }.freeze

    def initialize(worker, conn, input, env)
      @worker = worker
      @conn = conn
      @input = input
      @env = env
      @rack_input = env["rack.input"] # middleware may put another in its place
      @no_body = @is_head = env["REQUEST_METHOD"] == "HEAD"
      @length = nil # what the response head says of the body's length
      @sent = 0
      @flags = 0
      @head = @unchunked = @hijack = nil
      @begun = @done = @gone = @closed = @handed_over = @front_only = false
    end

    attr_reader :handed_over

    # What has come of the next session, or nil.
    def behind
      @input.behind
    end

    # Serve it. True if the stream may carry another session.
    def run(application)
      status = headers = body = failure = nil
      begin
        status, headers, body = application.call(@env)
        unless @handed_over
          make_head(status, headers)
          body = deliver(body)
        end
      rescue Leave
        raise
      rescue Exception => e # rubocop:disable Lint/RescueException -- an `exit` in a request as well
        raise unless @worker.ours? || e.is_a?(StandardError) # the end of a process that the application forked

        failure = e
        failed(e)
      ensure
        # A body is closed once: here, whatever happened.
        close(body)
      end
      failure ||= ClientGone.new("the client is gone") if !@done && (@gone || @input.aborted)
      after_reply(status, headers, failure)
      finish
    end

    private

    def end_frame
      raise ClientGone, "the client is gone" if @input.broken

      @input.answered!
      flags = @input.aborted || @handed_over ? @flags | 1 : @flags
      flags.zero? ? THE_END : [END_, 1, flags].pack("CNC")
    end

    def gave_up?
      return PassengerTrio.readable?(@conn) && aborted_behind if @input.is_a?(Whole)

      @input.look
      @input.aborted || @input.broken
    end

    # Behind a whole request only an abort may come, or the end.
    def aborted_behind
      @input = Input.new(@conn, THE_END)
      @input.look
      true
    end

    def failed(error)
      @handed_over = false # a connection that it had taken over is ended: nobody may be left who would
      return if @gone || @input.aborted || @input.broken # It was told that nobody waits any more, and did as it should.

      report = Runtime.backtrace_of(error)
      PassengerTrio.say(report)
      return if @begun # No end: the client must see that the response is incomplete (if it was not complete before).

      # The end of a backtrace says less than its front, unlike in other languages.
      texts = [[error.class.name.to_s, 1024], [Runtime.message_of(error), 16_384], [report, 65_536]].map do |text, most|
        "#{text.gsub("\0", '\0').byteslice(0, most).scrub('')}\0".b
      end
      payload = texts.join
      @begun = true
      push([ERROR, payload.bytesize].pack("CN") << payload << end_frame)
      @done = true
    rescue ClientGone
      nil
    end

    def close(body)
      body.close if body.respond_to?(:close)
    rescue Leave
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException
      PassengerTrio.say(Runtime.backtrace_of(e))
    end

    # What the application wanted to do when the client has its answer.
    def after_reply(status, headers, error)
      # The application may have emptied its environment.
      @env["rack.after_reply"]&.each { |callback| guarded { callback.call } }
      @env["rack.response_finished"]&.reverse_each { |callback| guarded { callback.call(@env, status, headers, error) } }
    end

    def guarded
      yield
    rescue Leave
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException
      PassengerTrio.say(Runtime.backtrace_of(e))
    end

    def finish
      return false if @handed_over

      @rack_input.discard if @rack_input.is_a?(RewindableInput)
      if @input.aborted && !@done && !@input.broken
        begin
          push([END_, 1, 1].pack("CNC"))
        rescue ClientGone
          nil
        end
      end
      @done && !@input.aborted && !@gone && @input.finish
    end

    def push(*parts)
      @conn.write(*parts)
    rescue SystemCallError, IOError
      @gone = true
      raise ClientGone, "the client is gone"
    end
  end
end
