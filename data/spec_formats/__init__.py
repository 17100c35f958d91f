"""Read a personality from any format in which people have one: `reader.read` detects the format from the content.

`reader` opens files, folders and archives, `formats` is the table of JSON and YAML formats, and one module reads each
format. `macros`, `examples`, `lists` and `wording` are shared by them.
"""
