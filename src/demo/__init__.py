"""Generated pictures for the demo: shapes (`shapes`) placed in scenes (`scenes`)."""
