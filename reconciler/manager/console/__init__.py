"""The console: a page in the browser that shows why an object is stuck, and how the process is doing.

`state` reads the parts of the manager and returns plain data, `pages` makes HTML of it, and `server` answers requests.
`server` imports htpy (the extra ``console``), so import it where the console is served.
"""
