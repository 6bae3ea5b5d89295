"""How results leave the program: text, JSON, SARIF, JUnit and HTML, one module each."""
