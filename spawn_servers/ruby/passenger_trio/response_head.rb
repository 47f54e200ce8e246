# frozen_string_literal: true

# From a Rack response's status and headers to the payload of a RESPONSE or INTERIM frame.
#
# Knows which headers are for the server: rack.*, Content-Length, Transfer-Encoding, X-Passenger-Request-OOB-Work.
# The supervisor checks the others (CONTRACT.md).
#
# Law: a head that the frames cannot carry (a NUL byte, an empty name, too long) is an error of the application.

module PassengerTrio
  class Session
    # Status -> the beginning of a response head, with the reason that Rack gives it.
    STATUS_LINES = Hash.new do |_, code|
      STATUS_LINES_LOCK.synchronize do
        STATUS_LINES[code] = "#{code}\0#{Rack::Utils::HTTP_STATUS_CODES[code]}\0".b.freeze
      end
    end
    STATUS_LINES_LOCK = Mutex.new
    NO_BODY = { 204 => true, 304 => true }.freeze
    # The lengths of the server's headers: content-length, transfer-encoding, x-passenger-request-oob-work. Names of other lengths
    # are not looked at.
    SPECIAL_NAME_SIZES = { 14 => true, 17 => true, 28 => true }.freeze

    # +env["rack.early_hints"].call(headers)+
    def early_hints(headers)
      raise IOError, "the response has begun" if @begun

      hints = "103\0Early Hints\0".b
      pairs = headers.sum { |name, value| add_header(hints, name, value) }
      check_head(hints, pairs)
      write([INTERIM, hints.bytesize].pack("CN") << hints)
    end

    private

    def make_head(status, headers)
      code = status.to_i
      @switching_protocols = code == 101
      unless code.between?(200, 999) || @switching_protocols
        raise ArgumentError, "not the status of a response: #{status.inspect}"
      end

      @no_body ||= NO_BODY.key?(code)
      head = STATUS_LINES[code].dup
      pairs = 0
      headers.each do |name, value|
        if value.instance_of?(String) && name.instance_of?(String) && !SPECIAL_NAME_SIZES.key?(name.bytesize) &&
           !value.include?("\n") && !name.start_with?("rack.")
          head << appendable(name) << "\0" << appendable(value) << "\0"
          pairs += 1
        else
          pairs += add_header(head, name, value)
        end
      end
      check_head(head, pairs)
      @head = head
    end

    # The number of pairs that were added.
    def add_header(head, name, value)
      name = name.to_s
      case name.downcase
      when /\Arack\./
        @hijack = value if name == "rack.hijack"
        return 0
      when "content-length"
        value = Array(value).join("\n").strip
        @length = value =~ /\A\d{1,18}\z/ ? value.to_i : nil
      when "transfer-encoding"
        @dechunker = Dechunker.new if value.to_s.casecmp?("chunked")
        return 0
      when "x-passenger-request-oob-work"
        @flags |= OUT_OF_BAND_WORK
        return 0
      end
      values = value.is_a?(Array) ? value : value.to_s.split("\n")
      values = [""] if values.empty? && value.is_a?(String)
      values.each { |text| head << appendable(name) << "\0" << appendable(text.to_s) << "\0" }
      values.size
    end

    def check_head(head, pairs)
      raise ArgumentError, "a response header has a NUL byte" if head.count("\0") != 2 + (2 * pairs)
      raise ArgumentError, "a response header has an empty name" if head.include?("\0\0") && empty_name?(head)
      raise ArgumentError, "the response head is longer than #{MAX_HEAD} bytes" if head.bytesize > MAX_HEAD
    end

    def empty_name?(head)
      head.split("\0", -1).each_slice(2).drop(1)[0..-2].any? { |name,| name.empty? }
    end

    # A string that can be appended to any other: ASCII or binary.
    def appendable(text)
      text.ascii_only? || text.encoding == Encoding::BINARY ? text : text.b
    end
  end
end
