# frozen_string_literal: true

# Lines of JSON.

module PassengerTrio
  # The JSON of the control connection. Ruby's own is a gem (see the laws).
  module Json
    TOKEN = /\G\s*("[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|[\[\]{},:])\s*/.freeze
    SHORT = { "n" => "\n", "r" => "\r", "t" => "\t", "b" => "\b", "f" => "\f" }.freeze
    WORDS = { "true" => true, "false" => false, "null" => nil }.freeze

    class << self
      # :raises ArgumentError:
      def read(line)
        tokens = line.scan(TOKEN).map(&:first)
        rest = Regexp.last_match
        value = take(tokens)
        raise ArgumentError, "not JSON" unless tokens.empty? && rest && rest.post_match.empty?

        value
      end

      def write(value)
        case value
        when Hash then "{#{value.map { |name, member| "#{write(name.to_s)}:#{write(member)}" }.join(',')}}"
        when Array then "[#{value.map { |member| write(member) }.join(',')}]"
        when nil then "null"
        when Integer, Float, true, false then value.to_s
        else "\"#{PassengerTrio.utf8(value.to_s).gsub(/["\\\u0000-\u001f]/) { |char| format('\u%04x', char.ord) }}\""
        end
      end

      private

      def take(tokens)
        token = tokens.shift
        case token
        when "{" then members(tokens, "}") { [take(tokens), expect(tokens, ":") && take(tokens)] }.to_h
        when "[" then members(tokens, "]") { take(tokens) }
        when /\A"/ then text(token[1..-2])
        when /\A-?\d+\z/ then token.to_i
        when /\A-?\d/ then token.to_f
        else WORDS.fetch(token) { raise ArgumentError, "not JSON" }
        end
      end

      def members(tokens, closing)
        found = []
        return found if tokens.first == closing && tokens.shift

        loop do
          found << yield
          return found if tokens.first == closing && tokens.shift

          expect(tokens, ",")
        end
      end

      def expect(tokens, wanted)
        tokens.shift == wanted || raise(ArgumentError, "not JSON")
      end

      def text(raw)
        raw.gsub(/\\u(d[89ab]\h\h)\\u(d[c-f]\h\h)|\\u(\h{4})|\\(.)/i) do
          high, low, plain, short = $1, $2, $3, $4
          next [0x10000 + ((high.hex & 0x3ff) << 10) + (low.hex & 0x3ff)].pack("U") if high
          next [plain.hex].pack("U").scrub if plain

          SHORT.fetch(short, short)
        end
      end
    end
  end
end
