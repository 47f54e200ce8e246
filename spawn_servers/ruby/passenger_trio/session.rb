# frozen_string_literal: true

# One request and its response: calls the application, and ends the session whatever the application does.
#
# The class goes on in response_head.rb, response_body.rb, response_file.rb and hijack.rb. This file knows the order of
# a session and what an exception means at each point of it.
#
# Laws:
#
# * A response body is closed exactly once, on every path, unless its own to_ary has closed it.
# * A response without its END_ is incomplete, and the client gets to see that.
# * Nothing that the application raises ends the worker, +exit+ included. Only the process's own end does, and the end of a
#   process that the application forked.

module PassengerTrio
  class Session
    attr_reader :handed_over # another thread, or the application, ends the stream

    def initialize(worker, conn, body, env)
      @worker = worker
      @conn = conn
      @body = body
      @env = env
      @rack_input = env["rack.input"] # middleware may put another in its place
      @no_body = @is_head = env["REQUEST_METHOD"] == "HEAD"
      @length = nil # the Content-Length of the response
      @sent = 0 # bytes of the response's body
      @flags = 0 # of END_
      @head = @dechunker = @hijack = nil
      @begun = @done = @client_gone = @closed = @handed_over = @switching_protocols = false
    end

    # What has arrived of the next session's head, or nil.
    def next_head
      @body.next_head
    end

    # Serve the session. True if the stream may carry another one.
    def run(application)
      status = headers = body = failure = nil
      begin
        status, headers, body = application.call(@env)
        unless @handed_over
          make_head(status, headers)
          body = send_body(body)
        end
      rescue ProcessStopping
        raise
      rescue Exception => e # rubocop:disable Lint/RescueException -- `exit` in a request is an error of the request
        raise unless @worker.ours? || e.is_a?(StandardError) # a process that the application forked ends

        failure = e
        report_error(e)
      ensure
        close_body(body)
      end
      failure ||= ClientGone.new("the client is gone") if !@done && (@client_gone || @body.aborted)
      call_after_reply(status, headers, failure)
      finish
    end

    private

    # END_ with its flags.
    def end_frame
      raise ClientGone, "the client is gone" if @body.malformed

      @body.response_ended!
      flags = @body.aborted || @handed_over ? @flags | CLOSE_STREAM : @flags
      flags.zero? ? END_FRAME : [END_, 1, flags].pack("CNC")
    end

    def client_gone?
      return PassengerTrio.readable?(@conn) && look_behind_request if @body.is_a?(EmptyBody)

      @body.check_client
      @body.aborted || @body.malformed
    end

    # Behind a whole request only an abort or the end of file may come.
    def look_behind_request
      @body = RequestBody.new(@conn, END_FRAME)
      @body.check_client
      true
    end

    def report_error(error)
      @handed_over = false # The application has taken the stream over, and failed: nobody else ends it.
      return if @client_gone || @body.aborted || @body.malformed # The application was told, and ended as it should.

      report = Advice.backtrace_of(error)
      PassengerTrio.log(report)
      return if @begun # No END_: the client gets to see that the response is incomplete.

      # The beginning of a Ruby backtrace says more than its end, so it is cut at its end.
      texts = [[error.class.name.to_s, 1024], [Advice.message_of(error), 16_384], [report, 65_536]].map do |text, max|
        "#{text.gsub("\0", '\0').byteslice(0, max).scrub('')}\0".b
      end
      payload = texts.join
      @begun = true
      write([ERROR, payload.bytesize].pack("CN") << payload << end_frame)
      @done = true
    rescue ClientGone
      nil
    end

    def close_body(body)
      body.close if body.respond_to?(:close)
    rescue ProcessStopping
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException
      PassengerTrio.log(Advice.backtrace_of(e))
    end

    # What the application registered to be called behind its response.
    def call_after_reply(status, headers, error)
      # `&.`: the application may have emptied its environment.
      @env["rack.after_reply"]&.each { |callback| log_errors { callback.call } }
      @env["rack.response_finished"]&.reverse_each { |callback| log_errors { callback.call(@env, status, headers, error) } }
    end

    def log_errors
      yield
    rescue ProcessStopping
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException
      PassengerTrio.log(Advice.backtrace_of(e))
    end

    # True if the stream may carry another session.
    def finish
      return false if @handed_over

      @rack_input.delete if @rack_input.is_a?(RewindableBody)
      if @body.aborted && !@done && !@body.malformed
        begin
          write([END_, 1, CLOSE_STREAM].pack("CNC"))
        rescue ClientGone
          nil
        end
      end
      @done && !@body.aborted && !@client_gone && @body.discard_rest
    end

    # :raises ClientGone:
    def write(*parts)
      @conn.write(*parts)
    rescue SystemCallError, IOError
      @client_gone = true
      raise ClientGone, "the client is gone"
    end
  end
end
