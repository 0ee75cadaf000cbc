"""Small operators with one bug each, of the kinds that Sieve, Acto and Anvil found in real ones, and their mended form.

Each is a class with the bug, and a subclass or sibling named ``Mended…`` with the smallest change that mends it.
"""
