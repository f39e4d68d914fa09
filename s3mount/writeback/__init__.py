"""Write-back: a store around a store whose commits are safe on local disk when they return, and reach the store inside in the background.

records    pure: what the journal says of one change
journal    the folder: SQLite, bodies, the lock; safe from kill -9 and power cuts
"""
