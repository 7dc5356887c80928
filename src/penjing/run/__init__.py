"""What one run of `compress` needs beside the techniques: what was asked and whether it fits (`request`), how long it will
take (`estimate`, `clock`), its folder and its stages (`workspace`, `stages`, `lock`), training (`recovery`), the files that
are handed over (`delivery`), and the proof of what came out (`verification`, `assemble_report`, `provenance`,
`recheck`).
"""
