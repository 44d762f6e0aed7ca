"""On-policy rounds: the same pipeline again and again, each time from the policy that it trained last.

`derived` says what one round's pipeline is, `figures` what is known of a round and which gate it meets, `course` runs
the rounds one after the other. docs/rounds.md is the page for users.
"""
