# frozen_string_literal: true

# Exit hooks that belong to one process.

module PassengerTrio
  # Which of the hooks that the application registers while it is loaded remove what others use.
  module ExitHooks
    # What methods are called that remove files and directories, or end processes.
    REMOVERS = /mid:(?:remove_entry\w*|remove_dir|remove_file|rm|rm_r|rm_f|rm_rf|rmtree|rmdir|unlink|safe_unlink|kill|terminate|cleanup)\b/.freeze
    DELETERS = /getconstant.*:(?:File|Dir)\b.*mid:(?:delete)\b/m.freeze

    @removing = []
    @loading = false

    class << self
      # Note what is registered while the block runs.
      def watch
        @loading = true
        yield
      ensure
        @loading = false
      end

      def removing
        @removing.map { |block| "the exit hook at #{block.source_location.join(':')}" }
      end

      # +block+, or one that does the same in this process only.
      def owned(block)
        return block unless @loading && removes?(block)

        @removing << block
        owner = Process.pid
        proc { block.call if Process.pid == owner }
      end

      private

      def removes?(block)
        code = RubyVM::InstructionSequence.of(block)
        return false if code.nil?

        text = code.disasm
        REMOVERS.match?(text) || DELETERS.match?(text)
      rescue StandardError, NotImplementedError
        false
      end
    end
  end
end

module Kernel
  original = Kernel.method(:at_exit)
  define_method(:at_exit) do |&block|
    original.call(&(block && PassengerTrio::ExitHooks.owned(block)))
    block
  end
  module_function :at_exit
end
