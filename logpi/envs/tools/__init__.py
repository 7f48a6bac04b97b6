"""Tools that a policy may call while it writes, and the environments with tools.

    tool.py          Tool: a Python function, or a schema and a function for it
    environment.py   ToolEnvironment: reads, checks and runs calls, and returns their results
    search_r1.py     Search-R1's conversation
    text_gym.py      a Gymnasium-style text environment
    calculator.py    exact arithmetic
    python.py        programs, in the sandbox
    ranking.py       BM25 over a corpus
    retrieve.py      a server with Search-R1's /retrieve
    mcp_server.py    an MCP server's tools

Left out: sampling, and limits on turns and tokens (`rollouts`).
"""

from logpi.envs.tools.calculator import calculator
from logpi.envs.tools.environment import ToolEnvironment
from logpi.envs.tools.mcp_server import McpServer
from logpi.envs.tools.python import python
from logpi.envs.tools.ranking import Bm25, Corpus, Document, Searcher, search_tool
from logpi.envs.tools.retrieve import RetrieveClient
from logpi.envs.tools.text_gym import TextGym
from logpi.envs.tools.tool import Tool, openai_tools, tool

__all__ = [
    "Bm25",
    "Corpus",
    "Document",
    "McpServer",
    "RetrieveClient",
    "Searcher",
    "TextGym",
    "Tool",
    "ToolEnvironment",
    "calculator",
    "openai_tools",
    "python",
    "search_tool",
    "tool",
]
