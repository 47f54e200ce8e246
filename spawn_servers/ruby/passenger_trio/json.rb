# frozen_string_literal: true

# Reads and writes the JSON of control messages.
#
# Ruby's own `json` is a gem: loading it would take the choice of its version from the application (see passenger_trio.rb).
# Knows JSON values; the messages are in control_connection.rb.

module PassengerTrio
  module Json
    TOKEN = /\G\s*("[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|[\[\]{},:])\s*/.freeze
    SHORT = { "n" => "\n", "r" => "\r", "t" => "\t", "b" => "\b", "f" => "\f" }.freeze
    WORDS = { "true" => true, "false" => false, "null" => nil }.freeze

    class << self
      # :raises ArgumentError: the line is not one JSON value.
      def parse(line)
        tokens = line.scan(TOKEN).map(&:first)
        last = Regexp.last_match
        value = parse_value(tokens)
        raise ArgumentError, "not JSON" unless tokens.empty? && last && last.post_match.empty?

        value
      end

      def generate(value)
        case value
        when Hash then "{#{value.map { |name, member| "#{generate(name.to_s)}:#{generate(member)}" }.join(',')}}"
        when Array then "[#{value.map { |member| generate(member) }.join(',')}]"
        when nil then "null"
        when Integer, Float, true, false then value.to_s
        else "\"#{PassengerTrio.utf8(value.to_s).gsub(/["\\\u0000-\u001f]/) { |char| format('\u%04x', char.ord) }}\""
        end
      end

      private

      def parse_value(tokens)
        token = tokens.shift
        case token
        when "{" then parse_members(tokens, "}") { [parse_value(tokens), take_token(tokens, ":") && parse_value(tokens)] }.to_h
        when "[" then parse_members(tokens, "]") { parse_value(tokens) }
        when /\A"/ then unescape(token[1..-2])
        when /\A-?\d+\z/ then token.to_i
        when /\A-?\d/ then token.to_f
        else WORDS.fetch(token) { raise ArgumentError, "not JSON" }
        end
      end

      def parse_members(tokens, closing)
        found = []
        return found if tokens.first == closing && tokens.shift

        loop do
          found << yield
          return found if tokens.first == closing && tokens.shift

          take_token(tokens, ",")
        end
      end

      def take_token(tokens, wanted)
        tokens.shift == wanted || raise(ArgumentError, "not JSON")
      end

      def unescape(raw)
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
