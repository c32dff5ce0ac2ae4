"""Is this machine right, and are our numbers right on it?"""
