# frozen_string_literal: true

# Exit hooks that belong to one process: a hook that removes files or ends processes must not run in every forked worker.
#
# Knows Kernel#at_exit, and the bytecode of blocks.
#
# Law: such a hook runs in the process that registered it, and in no other. Every other hook runs in each process.

module PassengerTrio
  module ExitHooks
    # Calls, in bytecode, that remove files and directories or end processes.
    REMOVERS = /mid:(?:remove_entry\w*|remove_dir|remove_file|rm|rm_r|rm_f|rm_rf|rmtree|rmdir|unlink|safe_unlink|kill|terminate|cleanup)\b/.freeze
    DELETERS = /getconstant.*:(?:File|Dir)\b.*mid:(?:delete)\b/m.freeze

    @removing = [] # blocks
    @loading = false

    class << self
      # Look at the hooks that are registered while the block runs.
      def watch
        @loading = true
        yield
      ensure
        @loading = false
      end

      # Descriptions of the hooks that were found.
      def removing
        @removing.map { |block| "the exit hook at #{block.source_location.join(':')}" }
      end

      # +block+, or one that does the same in this process only.
      def restrict(block)
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
    original.call(&(block && PassengerTrio::ExitHooks.restrict(block)))
    block
  end
  module_function :at_exit
end
