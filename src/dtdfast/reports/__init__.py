"""A report: one page of HTML about some explanations, with the tests that say what they are worth.

`inputs` says what is explained, `checks` and `gather` compute every number, `figures`, `charts` and `page` show them;
`elements` makes HTML without any library.
"""
