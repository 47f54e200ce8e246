# frozen_string_literal: true

# From a status and headers to a head.

module PassengerTrio
  class Session
    # +env["rack.early_hints"].call(headers)+
    def early_hints(headers)
      raise IOError, "the response has begun" if @begun

      hints = "103\0Early Hints\0".b
      pairs = headers.sum { |name, value| add_header(hints, name, value) }
      check_head(hints, pairs)
      push([INTERIM, hints.bytesize].pack("CN") << hints)
    end

    private

    def make_head(status, headers)
      code = status.to_i
      @front_only = code == 101
      raise ArgumentError, "not the status of a response: #{status.inspect}" unless code.between?(200, 999) || @front_only

      @no_body ||= NO_BODY.key?(code)
      head = FRONTS[code].dup
      pairs = 0
      headers.each do |name, value|
        if value.instance_of?(String) && name.instance_of?(String) && !SPECIAL_SIZES.key?(name.bytesize) && !value.include?("\n") &&
           !name.start_with?("rack.")
          head << ascii(name) << "\0" << ascii(value) << "\0"
          pairs += 1
        else
          pairs += add_header(head, name, value)
        end
      end
      check_head(head, pairs)
      @head = head
    end

    # The number of pairs that it made.
    def add_header(head, name, value)
      name = name.to_s
      case name.downcase
      when /\Arack\./
        @hijack = value if name == "rack.hijack"
        return 0 # for the server, not for the client
      when "content-length"
        value = Array(value).join("\n").strip
        @length = value =~ /\A\d{1,18}\z/ ? value.to_i : nil
      when "transfer-encoding"
        @unchunked = Unchunked.new if value.to_s.casecmp?("chunked")
        return 0
      when "x-passenger-request-oob-work"
        @flags |= 2
        return 0
      end
      values = value.is_a?(Array) ? value : value.to_s.split("\n")
      values = [""] if values.empty? && value.is_a?(String)
      values.each { |text| head << ascii(name) << "\0" << ascii(text.to_s) << "\0" }
      values.size
    end

    def check_head(head, pairs)
      raise ArgumentError, "a response header has a NUL byte" if head.count("\0") != 2 + (2 * pairs)
      raise ArgumentError, "a response header has an empty name" if head.include?("\0\0") && head.split("\0", -1).each_slice(2).drop(1)[0..-2].any? { |name,| name.empty? }
      raise ArgumentError, "the response head is longer than #{MAX_HEAD} bytes" if head.bytesize > MAX_HEAD
    end

    # A string whose bytes can be put behind any others.
    def ascii(text)
      text.ascii_only? || text.encoding == Encoding::BINARY ? text : text.b
    end
  end
end
