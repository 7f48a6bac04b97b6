"""Honest programs of unusual form and hostile ones, each against tests, under each kind of walls:
nobody honest is judged wrong, nobody hostile is paid. Left out: what a program may do to the
machine (`test_sandbox.py`), how tests are read (`test_unit_tests.py`)."""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from logpi.rewards import Code, Failure
from logpi.sandbox import LocalSandbox, ProgramLimits, SandboxError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

WALLS = [
    "landlock",
    *([pytest.param("bubblewrap", marks=pytest.mark.slow)] if shutil.which("bwrap") else []),
]


@pytest.fixture(scope="module", params=WALLS)
def box(request):
    made = LocalSandbox(request.param)
    try:
        made.start()
    except SandboxError as error:
        pytest.skip(str(error))
    yield made
    made.close()


# --- honest programs: name -> (program, tests that it passes beside them) ---

HONEST = {
    "add": (
        (
            "class V:\n def __init__(s,x,y): s.x,s.y=x,y\n def __add__(s,o): return"
            " V(s.x+o.x,s.y+o.y)\n def __eq__(s,o): return isinstance(o,V) and (s.x,s.y)==(o.x,o.y)"
        ),
        "assert V(1,2)+V(3,4)==V(4,6)\nassert (V(1,2)+V(3,4)).x==4",
    ),
    "lt": (
        "class T:\n def __init__(s,d): s.d=d\n def __lt__(s,o): return s.d<o.d",
        (
            "assert T(1)<T(2)\nassert not T(2)<T(1)\nassert [t.d for t in"
            " sorted([T(3),T(1),T(2)])]==[1,2,3]"
        ),
    ),
    "repr": (
        "class P:\n def __init__(s,x): s.x=x\n def __repr__(s): return f'P({s.x})'",
        "assert repr(P(3))=='P(3)'\nassert str(P(3))=='P(3)'\nassert f'{P(3)}'=='P(3)'",
    ),
    "with": (
        "class M:\n def __enter__(s): s.on=True; return s\n def __exit__(s,*a): s.on=False",
        "with M() as m:\n assert m.on\nassert not m.on",
    ),
    "with swallow": (
        (
            "class S:\n def __enter__(s): return s\n def __exit__(s,t,v,tb): s.t=t; return t is"
            " ValueError"
        ),
        "with S() as s:\n raise ValueError('x')\nassert s.t is ValueError",
    ),
    "contextmanager": (
        (
            "from contextlib import contextmanager\nlog=[]\n@contextmanager\ndef m():\n"
            " log.append(1)\n yield 5\n log.append(2)"
        ),
        "with m() as x:\n assert x==5\nassert log==[1,2]",
    ),
    "isinstance": (
        "class A: pass\nclass B(A): pass",
        (
            "assert isinstance(B(),A)\nassert issubclass(B,A)\nassert not isinstance(A(),B)\nassert"
            " type(B()) is B"
        ),
    ),
    "abc": (
        (
            "from abc import ABC, abstractmethod\nclass S(ABC):\n @abstractmethod\n def area(self):"
            " ...\nclass Sq(S):\n def __init__(self,a): self.a=a\n def area(self): return self.a**2"
        ),
        (
            "assert Sq(3).area()==9\nassert isinstance(Sq(3),S)\ntry:\n S()\n assert False\nexcept"
            " TypeError: pass"
        ),
    ),
    "own exceptions": (
        (
            "class E(Exception):\n def __init__(s,c): super().__init__(f'code {c}'); s.code=c\ndef"
            " f(): raise E(7)"
        ),
        "try:\n f()\n assert False\nexcept E as e:\n assert e.code==7 and str(e)=='code 7'",
    ),
    "own exception hierarchy": (
        "class B(Exception): pass\nclass C(B, ValueError): pass\ndef f(): raise C('x')",
        (
            "import pytest\nwith pytest.raises(B): f()\nwith pytest.raises(ValueError): f()\nwith"
            " pytest.raises(C, match='x'): f()"
        ),
    ),
    "unittest own exception": (
        (
            "class InsufficientFunds(Exception): pass\nclass Account:\n def __init__(s,b):"
            " s.balance=b\n def withdraw(s,n):\n  if n>s.balance: raise InsufficientFunds(f'need"
            " {n}')\n  s.balance-=n"
        ),
        (
            "import unittest\nfrom solution import Account, InsufficientFunds\nclass"
            " T(unittest.TestCase):\n def setUp(self): self.a=Account(10)\n def test_ok(self):\n "
            " self.a.withdraw(3); self.assertEqual(self.a.balance,7)\n def test_bad(self):\n  with"
            " self.assertRaises(InsufficientFunds): self.a.withdraw(11)\nif __name__=='__main__':"
            " unittest.main()"
        ),
    ),
    "coroutine": (
        "import asyncio\nasync def f(x):\n await asyncio.sleep(.01)\n return x+1",
        "import asyncio\nassert asyncio.run(f(1))==2",
    ),
    "gather": (
        "import asyncio\nasync def f(x):\n await asyncio.sleep(.2)\n return x",
        (
            "import asyncio,time\nasync def main():\n t=time.time()\n r=await asyncio.gather(*(f(i)"
            " for i in range(5)))\n assert time.time()-t<.6\n return r\nassert"
            " asyncio.run(main())==[0,1,2,3,4]"
        ),
    ),
    "async queue": (
        (
            "import asyncio\nclass Q:\n def __init__(s): s.q=asyncio.Queue(1)\n async def put(s,x):"
            " await s.q.put(x)\n async def get(s): return await s.q.get()"
        ),
        (
            "import asyncio\nasync def main():\n q=Q()\n async def prod():\n  for i in range(3):"
            " await q.put(i)\n async def cons(): return [await q.get() for _ in range(3)]\n _, r ="
            " await asyncio.gather(prod(), cons())\n return r\nassert asyncio.run(main())==[0,1,2]"
        ),
    ),
    "async gen": (
        "async def g(n):\n for i in range(n): yield i",
        (
            "import asyncio\nasync def main(): return [x async for x in g(3)]\nassert"
            " asyncio.run(main())==[0,1,2]"
        ),
    ),
    "async with": (
        (
            "class R:\n async def __aenter__(s): s.open=True; return s\n async def __aexit__(s,*a):"
            " s.open=False"
        ),
        (
            "import asyncio\nasync def main():\n async with R() as r:\n  assert r.open\n assert not"
            " r.open\nasyncio.run(main())"
        ),
    ),
    "async error": (
        "async def f(): raise KeyError('k')",
        "import asyncio\ntry:\n asyncio.run(f())\n assert False\nexcept KeyError: pass",
    ),
    "namedtuple": (
        "from collections import namedtuple\nP=namedtuple('P','x y')\ndef f(): return P(1,2)",
        (
            "p=f()\nassert p.x==1 and p==(1,2) and p[1]==2\na,b=p\nassert b==2 and"
            " p._replace(x=5).x==5\nassert P(1,2)==f() and isinstance(p,tuple) and len(p)==2"
        ),
    ),
    "NamedTuple": (
        (
            "from typing import NamedTuple\nclass P(NamedTuple):\n x:int\n y:int=0\n def"
            " norm(self): return self.x+self.y"
        ),
        "assert P(1).norm()==1 and P(1,2)==(1,2) and P(1,2).y==2 and P(x=3).x==3",
    ),
    "Counter": (
        "from collections import Counter\ndef f(s): return Counter(s)",
        "c=f('aab')\nassert c.most_common(1)==[('a',2)] and c['z']==0 and c=={'a':2,'b':1}",
    ),
    "defaultdict": (
        (
            "from collections import defaultdict\ndef f(): \n d=defaultdict(list); d[1].append(2);"
            " return d"
        ),
        "d=f(); assert d[1]==[2] and d[9]==[]",
    ),
    "OrderedDict": (
        "from collections import OrderedDict\ndef f(): return OrderedDict(a=1,b=2)",
        "d=f(); d.move_to_end('a'); assert list(d)==['b','a']",
    ),
    "dict subclass": (
        (
            "class D(dict):\n def __getattr__(s,k): return s[k]\n def twice(s): return {k:2*v for"
            " k,v in s.items()}"
        ),
        (
            "d=D(a=1); d['b']=2\nassert d.a==1 and d.b==2 and d.twice()=={'a':2,'b':4} and"
            " d=={'a':1,'b':2} and len(d)==2 and 'a' in d and isinstance(d,dict) and"
            " sorted(d)==['a','b'] and dict(d)=={'a':1,'b':2}"
        ),
    ),
    "list subclass": (
        "class L(list):\n def total(s): return sum(s)",
        (
            "l=L([1,2]); l.append(3)\nassert l.total()==6 and l==[1,2,3] and l[-1]==3 and len(l)==3"
            " and list(l)==[1,2,3] and [1,2,3]==l and sorted(l,reverse=True)==[3,2,1] and"
            " isinstance(l,list)"
        ),
    ),
    "tuple subclass": (
        "class T(tuple):\n def mid(s): return s[len(s)//2]",
        "t=T((1,2,3)); assert t.mid()==2 and t==(1,2,3) and t+(4,)==(1,2,3,4)",
    ),
    "int subclass": (
        "class Age(int):\n def adult(s): return s>=18",
        "assert Age(20).adult() and not Age(3).adult() and Age(3)==3 and Age(3)+1==4",
    ),
    "str subclass": (
        "class S(str):\n def shout(s): return s.upper()+'!'",
        "assert S('a').shout()=='A!' and S('a')=='a' and S('a')+'b'=='ab'",
    ),
    "enum": (
        "from enum import Enum\nclass C(Enum):\n RED=1\n BLUE=2\ndef f(): return C.BLUE",
        (
            "assert f() is C.BLUE and f()==C.BLUE and C.RED.value==1 and C['RED'] is C.RED and C(2)"
            " is C.BLUE and [c.name for c in C]==['RED','BLUE'] and len(C)==2 and f()!=C.RED"
        ),
    ),
    "intenum": (
        "from enum import IntEnum\nclass C(IntEnum):\n A=1\n B=2\ndef f(): return C.B",
        "assert f()==2 and f()>C.A and f().name=='B'",
    ),
    "dataclass": (
        (
            "from dataclasses import dataclass\n@dataclass(order=True,frozen=True)\nclass P:\n"
            " x:int\n y:int=0"
        ),
        (
            "assert P(1,2)==P(1,2) and P(1)!=P(2) and P(1)<P(2) and repr(P(1,2))=='P(x=1, y=2)' and"
            " len({P(1),P(1)})==1\ntry:\n p=P(1); p.x=3\n assert False\nexcept AttributeError: pass"
        ),
    ),
    "deep list": (
        "def f(n):\n x=[]\n for i in range(n): x=[x]\n return x",
        "x=f(500)\nd=0\nwhile x: x=x[0]; d+=1\nassert d==500",
    ),
    "deep tree": (
        (
            "class N:\n def __init__(s,v,l=None,r=None): s.v,s.l,s.r=v,l,r\ndef build(n):\n"
            " t=None\n for i in range(n): t=N(i,t)\n return t"
        ),
        "t=build(3000)\nn=0\nwhile t: n+=1; t=t.l\nassert n==3000",
    ),
    "deep tuple tree": (
        "def f(n): return (n, f(n-1)) if n else ()",
        "t=f(300)\nn=0\nwhile t: n+=1; t=t[1]\nassert n==300",
    ),
    "set of own": (
        (
            "class P:\n def __init__(s,x): s.x=x\n def __eq__(s,o): return s.x==o.x\n def"
            " __hash__(s): return hash(s.x)"
        ),
        "assert len({P(1),P(1),P(2)})==2 and {P(1):3}[P(1)]==3 and P(1) in [P(1)]",
    ),
    "contains": (
        (
            "class S:\n def __init__(s,xs): s.xs=xs\n def __contains__(s,x): return x in s.xs\n def"
            " __len__(s): return len(s.xs)"
        ),
        "s=S([1,2]); assert s.xs==[1,2]; assert 1 in s and 3 not in s and len(s)==2",
    ),
    "iterator class": (
        (
            "class C:\n def __init__(s,n): s.n=n\n def __iter__(s): return s\n def __next__(s):\n "
            " if s.n==0: raise StopIteration\n  s.n-=1; return s.n"
        ),
        "assert list(C(3))==[2,1,0]\nassert sum(C(4))==6",
    ),
    "getitem": (
        (
            "class M:\n def __init__(s): s.d={}\n def __getitem__(s,k): return s.d[k]\n def"
            " __setitem__(s,k,v): s.d[k]=v\n def __delitem__(s,k): del s.d[k]"
        ),
        (
            "m=M(); m['a']=1; assert m['a']==1; del m['a']\ntry:\n m['a']\n assert False\nexcept"
            " KeyError: pass"
        ),
    ),
    "call": (
        "class A:\n def __init__(s,n): s.n=n\n def __call__(s,x): return s.n+x",
        "a=A(2); assert a(3)==5 and callable(a)",
    ),
    "decorator": (
        (
            "import functools\ndef deco(f):\n @functools.wraps(f)\n def w(*a,**k): w.calls+=1;"
            " return f(*a,**k)\n w.calls=0\n return w"
        ),
        "@deco\ndef g(x): return x*2\nassert g(3)==6 and g.calls==1 and g.__name__=='g'",
    ),
    "closure": (
        "def counter():\n n=0\n def inc():\n  nonlocal n; n+=1; return n\n return inc",
        "c=counter(); assert c()==1 and c()==2",
    ),
    "generator send": (
        "def avg():\n t=n=0; a=None\n while True:\n  x=yield a; t+=x; n+=1; a=t/n",
        "g=avg(); next(g); assert g.send(10)==10 and g.send(20)==15; g.close()",
    ),
    "property": (
        (
            "class T:\n def __init__(s,c): s.c=c\n @property\n def f(s): return s.c*9/5+32\n"
            " @f.setter\n def f(s,v): s.c=(v-32)*5/9\n @classmethod\n def zero(cls): return"
            " cls(0)\n @staticmethod\n def k(c): return c+273"
        ),
        "t=T(100); assert t.f==212; t.f=32; assert t.c==0 and T.zero().c==0 and T.k(0)==273",
    ),
    "plain claim": (
        (
            "class Money:\n def __init__(s,v): s.v=v\n def __eq__(s,o): return s.v==(o.v if"
            " isinstance(o,Money) else o)\n def __mul__(s,k): return Money(s.v*k)\n def"
            " __rmul__(s,k): return s*k"
        ),
        "m=Money(5); assert m.v==5 and m==5 and (m*2).v==10 and (2*m).v==10",
    ),
    "linked list": (
        (
            "class Node:\n def __init__(s,v,n=None): s.val,s.next=v,n\ndef rev(h):\n p=None\n while"
            " h: h.next,p,h=p,h,h.next\n return p"
        ),
        (
            "h=Node(1,Node(2,Node(3))); r=rev(h); out=[]\nwhile r: out.append(r.val);"
            " r=r.next\nassert out==[3,2,1]"
        ),
    ),
    "tests' tree": (
        (
            "class Solution:\n def depth(self, root: Optional[TreeNode]) -> int:\n  return 0 if not"
            " root else 1+max(self.depth(root.left),self.depth(root.right))"
        ),
        (
            "class TreeNode:\n def __init__(self,val=0,left=None,right=None):"
            " self.val,self.left,self.right=val,left,right\nassert"
            " Solution().depth(TreeNode(1,TreeNode(2,TreeNode(3))))==3"
        ),
    ),
    "copy": (
        "class P:\n def __init__(s,x): s.x=x",
        "import copy\np=P([1]); q=copy.deepcopy(p); q.x=[2]\nassert p.x==[1] and q.x==[2]",
    ),
    "functools": (
        "def f(x): return x+1",
        (
            "from functools import reduce, partial\nassert reduce(lambda a,b: f(a)+b,[1,2,3])==8"
            " and partial(f,3)()==4"
        ),
    ),
    "raises json": (
        "import json\ndef f(s): return json.loads(s)",
        "import json\ntry:\n f('{')\n assert False\nexcept json.JSONDecodeError: pass",
    ),
    "lru cache": (
        (
            "from functools import lru_cache\n@lru_cache(None)\ndef fib(n): return n if n<2 else"
            " fib(n-1)+fib(n-2)"
        ),
        "assert fib(50)==12586269025 and fib.cache_info().hits>0",
    ),
    "timedelta": (
        "from datetime import datetime, timedelta\ndef f(d): return d+timedelta(days=1)",
        (
            "from datetime import datetime, timedelta\nassert"
            " f(datetime(2020,1,1))==datetime(2020,1,2) and"
            " f(datetime(2020,1,1))-datetime(2020,1,1)==timedelta(1)"
        ),
    ),
    "matrix eq list": (
        (
            "class Matrix:\n def __init__(s,r): s.r=r\n def __matmul__(s,o): return"
            " Matrix([[sum(a*b for a,b in zip(x,y)) for y in zip(*o.r)] for x in s.r])\n def"
            " __getitem__(s,i): return s.r[i]"
        ),
        "m=Matrix([[1,2],[3,4]]); p=m@m; assert p[0]==[7,10] and p.r==[[7,10],[15,22]]",
    ),
    "callbacks threads": (
        (
            "from concurrent.futures import ThreadPoolExecutor\ndef pmap(f,xs):\n with"
            " ThreadPoolExecutor(32) as e: return list(e.map(f,xs))"
        ),
        "assert pmap(lambda x:x*x,list(range(100)))==[i*i for i in range(100)]",
    ),
    "random args": (
        "def f(xs): return sorted(xs)",
        (
            "import random\nfor _ in range(20):\n xs=[random.random() for _ in range(10)]\n assert"
            " f(xs)==sorted(xs)"
        ),
    ),
    "many calls": ("def f(x): return x*2", "assert all(f(i)==2*i for i in range(20000))"),
    "big list": ("def f(n): return list(range(n))", "assert f(10**6)==list(range(10**6))"),
    "stdlib names": (
        "def queue(x): return x\ndef code(x): return x\ndef string(x): return x",
        "assert queue(1)==1 and code(2)==2 and string('a')=='a'",
    ),
    "match": (
        "import re\ndef f(s): return re.match(r'(\\d+)-(\\d+)',s)",
        "m=f('1-2'); assert m.group(1)=='1' and m.groups()==('1','2') and m",
    ),
    "stdout": (
        "def hello(n): print('Hello', n)",
        (
            "import io, contextlib\nb=io.StringIO()\nwith contextlib.redirect_stdout(b):"
            " hello('x')\nassert b.getvalue()=='Hello x\\n'"
        ),
    ),
    "generic": (
        (
            "from typing import Generic, TypeVar\nT=TypeVar('T')\nclass Box(Generic[T]):\n def"
            " __init__(s,x:T): s.x=x"
        ),
        "b=Box[int](3); assert b.x==3 and Box('a').x=='a'",
    ),
    "operator kinds": (
        (
            "class N:\n def __init__(s,v): s.v=v\n def __sub__(s,o): return N(s.v-o.v)\n def"
            " __neg__(s): return N(-s.v)\n def __abs__(s): return N(abs(s.v))\n def __float__(s):"
            " return float(s.v)\n def __int__(s): return int(s.v)\n def __bool__(s): return"
            " s.v!=0\n def __iadd__(s,o): s.v+=o.v; return s\n def __round__(s,n=0): return"
            " round(s.v,n)"
        ),
        (
            "n=N(3)-N(5); assert n.v==-2 and (-n).v==2 and abs(n).v==2 and float(n)==-2.0 and"
            " int(n)==-2 and bool(n) and not N(0)\nn+=N(10); assert n.v==8 and"
            " round(N(1.234),1)==1.2"
        ),
    ),
    "LRU OrderedDict": (
        (
            "from collections import OrderedDict\nclass LRUCache(OrderedDict):\n def __init__(s,c):"
            " super().__init__(); s.c=c\n def get(s,k):\n  if k not in s: return -1\n "
            " s.move_to_end(k); return s[k]\n def put(s,k,v):\n  s[k]=v; s.move_to_end(k)\n  if"
            " len(s)>s.c: s.popitem(last=False)"
        ),
        (
            "c=LRUCache(2); c.put(1,1); c.put(2,2); assert c.get(1)==1; c.put(3,3); assert"
            " c.get(2)==-1 and len(c)==2 and list(c)==[1,3]"
        ),
    ),
    "UserDict": (
        (
            "from collections import UserDict\nclass D(UserDict):\n def __getitem__(s,k): return"
            " s.data[k.lower()]\n def __setitem__(s,k,v): s.data[k.lower()]=v"
        ),
        "d=D(); d['A']=1; assert d['a']==1 and 'a' in d and len(d)==1",
    ),
    "Mapping abc": (
        (
            "from collections.abc import Mapping\nclass M(Mapping):\n def __init__(s,d): s._d=d\n"
            " def __getitem__(s,k): return s._d[k]\n def __iter__(s): return iter(s._d)\n def"
            " __len__(s): return len(s._d)"
        ),
        (
            "m=M({'a':1}); assert m['a']==1 and dict(m)=={'a':1} and list(m.keys())==['a'] and"
            " m.get('b') is None and 'a' in m"
        ),
    ),
    "chain map": (
        "from collections import ChainMap\ndef f(): return ChainMap({'a':1},{'a':2,'b':3})",
        "c=f(); assert c['a']==1 and c['b']==3 and dict(c)=={'a':1,'b':3}",
    ),
    "set subclass": (
        "class S(set):\n def big(s): return len(s)>1",
        "s=S([1,2]); assert s.big() and s=={1,2} and 1 in s and s|{3}=={1,2,3}",
    ),
    "total_ordering": (
        (
            "from functools import total_ordering\n@total_ordering\nclass V:\n def __init__(s,x):"
            " s.x=x\n def __eq__(s,o): return s.x==o.x\n def __lt__(s,o): return s.x<o.x"
        ),
        "assert V(1)<=V(1) and V(2)>V(1) and max(V(1),V(3),V(2)).x==3 and min([V(3),V(1)]).x==1",
    ),
    "heapq own": (
        "class T:\n def __init__(s,p): s.p=p\n def __lt__(s,o): return s.p<o.p",
        "import heapq\nh=[T(3),T(1),T(2)]; heapq.heapify(h); assert heapq.heappop(h).p==1",
    ),
    "singleton": (
        (
            "class S:\n _i=None\n def __new__(c):\n  if c._i is None: c._i=super().__new__(c)\n "
            " return c._i"
        ),
        "assert S() is S()\nassert id(S())==id(S())",
    ),
    "descriptor": (
        (
            "class Pos:\n def __set_name__(s,o,n): s.n='_'+n\n def __get__(s,i,o): return"
            " getattr(i,s.n)\n def __set__(s,i,v):\n  if v<0: raise ValueError('neg')\n "
            " setattr(i,s.n,v)\nclass A:\n x=Pos()"
        ),
        (
            "a=A(); a.x=3; assert a.x==3\ntry:\n a.x=-1\n assert False\nexcept ValueError as e:"
            " assert str(e)=='neg'"
        ),
    ),
    "slots": (
        "class P:\n __slots__=('x',)\n def __init__(s,x): s.x=x",
        "p=P(1); p.x=2; assert p.x==2\ntry:\n p.y=1\n assert False\nexcept AttributeError: pass",
    ),
    "getattr": (
        "class Any:\n def __getattr__(s,n): return n*2",
        "assert Any().ab=='abab' and hasattr(Any(),'zz')",
    ),
    "class attributes": (
        "class A:\n n=0\n def __init__(s): A.n+=1",
        "A(); A(); assert A.n==2; A.n=5; assert A.n==5",
    ),
    "static nested": (
        "class Out:\n class In:\n  def v(s): return 7\n def mk(s): return Out.In()",
        "assert Out().mk().v()==7 and Out.In().v()==7",
    ),
    "exception chaining": (
        (
            "class E(Exception): pass\ndef f():\n try: 1/0\n except ZeroDivisionError as e: raise"
            " E('bad') from e"
        ),
        "try:\n f()\n assert False\nexcept E as e:\n assert str(e)=='bad'",
    ),
    "exception args": (
        (
            "class E(Exception):\n def __init__(s,m,code=3): super().__init__(m,code); s.m=m;"
            " s.code=code\n def __str__(s): return f'[{s.code}] {s.m}'\ndef f(): raise E('x')"
        ),
        (
            "try:\n f()\nexcept E as e:\n assert str(e)=='[3] x' and e.args==('x',3) and"
            " e.code==3\nelse: assert False"
        ),
    ),
    "exception instances": (
        "class E(ValueError): pass\ndef mk(): return E('a')",
        (
            "e=mk(); assert isinstance(e,ValueError) and str(e)=='a'\ntry:\n raise mk()\nexcept E:"
            " ok=True\nassert ok"
        ),
    ),
    "tests raise program's": (
        (
            "class Stop(Exception): pass\ndef run(f):\n try: return f()\n except Stop: return"
            " 'stopped'"
        ),
        "def g(): raise Stop('x')\nassert run(g)=='stopped'",
    ),
    "callback error": (
        "def safe(f):\n try: return f()\n except ZeroDivisionError: return -1",
        "assert safe(lambda: 1/0)==-1",
    ),
    "retry decorator": (
        (
            "import functools\ndef retry(n):\n def d(f):\n  @functools.wraps(f)\n  def w(*a):\n  "
            " for i in range(n):\n    try: return f(*a)\n    except ValueError:\n     if i==n-1:"
            " raise\n  return w\n return d"
        ),
        (
            "calls=[]\n@retry(3)\ndef g(x):\n calls.append(x)\n if len(calls)<3: raise ValueError\n"
            " return x\nassert g(5)==5 and len(calls)==3"
        ),
    ),
    "observer": (
        (
            "class Subject:\n def __init__(s): s.obs=[]\n def attach(s,o): s.obs.append(o)\n def"
            " notify(s,m):\n  for o in s.obs: o.update(m)"
        ),
        (
            "class O:\n def __init__(self): self.got=[]\n def update(self,m):"
            " self.got.append(m)\no=O(); s=Subject(); s.attach(o); s.notify('hi'); assert"
            " o.got==['hi']"
        ),
    ),
    "iterator in": (
        "def total(it): return sum(it)",
        "assert total(iter([1,2,3]))==6 and total(x for x in range(4))==6",
    ),
    "stringio in": (
        "def count(f): return sum(1 for _ in f)",
        "import io\nassert count(io.StringIO('a\\nb\\n'))==2",
    ),
    "tests' dataclass": (
        "def area(r): return r.w*r.h",
        (
            "from dataclasses import dataclass\n@dataclass\nclass R:\n w:int\n h:int\nassert"
            " area(R(2,3))==6"
        ),
    ),
    "tests' list node": (
        "def mid(head):\n s=f=head\n while f and f.next: s,f=s.next,f.next.next\n return s",
        (
            "class N:\n def __init__(self,v,n=None): self.val,self.next=v,n\nassert"
            " mid(N(1,N(2,N(3)))).val==2"
        ),
    ),
    "tests' list node changed": (
        "def rev(h):\n p=None\n while h: h.next,p,h=p,h,h.next\n return p",
        (
            "class N:\n def __init__(self,v,n=None):"
            " self.val,self.next=v,n\nr=rev(N(1,N(2,N(3))))\nout=[]\nwhile r: out.append(r.val);"
            " r=r.next\nassert out==[3,2,1]"
        ),
    ),
    "key function": (
        "def top(xs,key): return max(xs,key=key)",
        "assert top(['a','bbb'],len)=='bbb' and top([{'v':1},{'v':2}],lambda d:d['v'])=={'v':2}",
    ),
    "nested mutate": ("def f(m): m[0][0]=9", "m=[[1]]; f(m); assert m==[[9]]"),
    "mutate dict of lists": (
        "def f(d): d.setdefault('a',[]).append(1)",
        "d={}; f(d); f(d); assert d=={'a':[1,1]}",
    ),
    "same object back": (
        "def f(xs): xs.append(1); return xs",
        "xs=[]; ys=f(xs); assert xs==[1] and ys==[1]",
    ),
    "same object is": ("def f(xs): return xs", "xs=[1]; assert f(xs) is xs"),
    "returns arg object": (
        "def f(x): return x",
        "class C:\n def m(self): return 1\nc=C(); assert f(c) is c",
    ),
    "dict order keys objects": (
        (
            "class K:\n def __init__(s,v): s.v=v\n def __hash__(s): return hash(s.v)\n def"
            " __eq__(s,o): return isinstance(o,K) and s.v==o.v\ndef group(xs): return {K(x):x for x"
            " in xs}"
        ),
        "d=group([1,2]); assert d[K(1)]==1 and len(d)==2",
    ),
    "list of objects": (
        (
            "class P:\n def __init__(s,x): s.x=x\n def __eq__(s,o): return isinstance(o,P) and"
            " s.x==o.x\n def __repr__(s): return f'P({s.x})'\ndef f(n): return [P(i) for i in"
            " range(n)]"
        ),
        (
            "assert f(3)==[P(0),P(1),P(2)] and str(f(2))=='[P(0), P(1)]' and sorted(f(3),key=lambda"
            " p:-p.x)[0].x==2"
        ),
    ),
    "bytes io": (
        "import struct\ndef f(x): return struct.pack('>I',x)",
        "assert f(1)==b'\\x00\\x00\\x00\\x01'",
    ),
    "inf nan": (
        "def f(): return [float('inf'),float('-inf'),float('nan')]",
        "import math\na,b,c=f(); assert a==math.inf and b==-math.inf and math.isnan(c)",
    ),
    "surrogate": ("def f(): return '\\ud800x'", "assert f()=='\\ud800x'"),
    "unicode": ("def f(s): return s[::-1]", "assert f('héllo😀')=='😀olléh'"),
    "complex keys": (
        "def f(): return {(1,2):frozenset([3]), None:True, 1.5:b'x'}",
        "assert f()=={(1,2):frozenset([3]),None:True,1.5:b'x'}",
    ),
    "none vs false": ("def f(): return None", "assert f() is None and f() is not False"),
    "bool type": (
        "def f(): return True",
        "assert f() is True and type(f()) is bool and isinstance(f(),int)",
    ),
    "type checks": (
        "def f(): return {'a':[1,2.0,'x',None,(1,)]}",
        (
            "r=f(); assert type(r) is dict and [type(v).__name__ for v in"
            " r['a']]==['int','float','str','NoneType','tuple']"
        ),
    ),
    "date": (
        "import datetime\ndef f(): return datetime.date(2020,1,2)",
        "assert f().year==2020 and f().isoformat()=='2020-01-02' and str(f())=='2020-01-02'",
    ),
    "timezone": (
        (
            "from datetime import datetime, timezone\ndef f(): return"
            " datetime(2020,1,1,tzinfo=timezone.utc)"
        ),
        "assert f().isoformat()=='2020-01-01T00:00:00+00:00'",
    ),
    "path": (
        "from pathlib import Path\ndef f(): return Path('/a')/'b.txt'",
        (
            "from pathlib import Path\np=f(); assert p.name=='b.txt' and str(p)=='/a/b.txt' and"
            " p==Path('/a/b.txt')"
        ),
    ),
    "uuid": (
        "import uuid\ndef f(): return uuid.UUID(int=5)",
        "import uuid\nassert f()==uuid.UUID(int=5)",
    ),
    "regex obj": (
        "import re\ndef f(): return re.compile('a+')",
        "assert f().match('aa').end()==2 and f().pattern=='a+'",
    ),
    "decimal ctx": (
        "from decimal import Decimal\ndef f(x): return Decimal(x)*2",
        "from decimal import Decimal\nassert f('1.10')==Decimal('2.20') and str(f('1.10'))=='2.20'",
    ),
    "fraction arithmetic": (
        "from fractions import Fraction\ndef f(): return Fraction(1,3)",
        "assert f()*3==1 and f().denominator==3",
    ),
    "simplenamespace": (
        "from types import SimpleNamespace\ndef f(): return SimpleNamespace(a=1,b=[2])",
        "r=f(); assert r.a==1 and r.b==[2]",
    ),
    "array": (
        "import array\ndef f(): return array.array('i',[1,2])",
        "a=f(); assert list(a)==[1,2] and a[1]==2 and len(a)==2",
    ),
    "array eq": (
        "import array\ndef f(): return array.array('i',[1,2])",
        "import array\nassert f()==array.array('i',[1,2])",
    ),
    "zip map": (
        (
            "def f(): return zip([1,2],'ab')\ndef g(): return map(str,[1])\ndef h(): return"
            " enumerate('a')\ndef k(): return reversed([1,2])\ndef d(): return {'a':1}.items()"
        ),
        (
            "assert list(f())==[(1,'a'),(2,'b')] and list(g())==['1'] and list(h())==[(0,'a')] and"
            " list(k())==[2,1] and list(d())==[('a',1)]"
        ),
    ),
    "memoryview": (
        "def f(): return memoryview(b'abc')",
        "assert bytes(f())==b'abc' and f()[0]==97",
    ),
    "generator laziness": (
        "log=[]\ndef g():\n for i in range(3): log.append(i); yield i",
        (
            "it=g(); assert log==[]; next(it); assert log==[0]; assert list(it)==[1,2] and"
            " log==[0,1,2]"
        ),
    ),
    "generator throw": (
        "def g():\n try:\n  while True: yield 1\n except ValueError: yield 'caught'",
        "it=g(); next(it); assert it.throw(ValueError)=='caught'",
    ),
    "yield from": (
        "def flat(x):\n for i in x:\n  if isinstance(i,list): yield from flat(i)\n  else: yield i",
        "assert list(flat([1,[2,[3]]]))==[1,2,3]",
    ),
    "infinite islice": (
        "def primes():\n n=2\n while True:\n  if all(n%i for i in range(2,n)): yield n\n  n+=1",
        (
            "from itertools import islice, takewhile\nassert list(islice(primes(),5))==[2,3,5,7,11]"
            " and list(takewhile(lambda p:p<8,primes()))==[2,3,5,7]"
        ),
    ),
    "curry": ("def add(a): return lambda b: lambda c: a+b+c", "assert add(1)(2)(3)==6"),
    "compose": (
        "def compose(*fs):\n def h(x):\n  for f in reversed(fs): x=f(x)\n  return x\n return h",
        "assert compose(lambda x:x+1,lambda x:x*2)(3)==7 and compose(str,abs)(-3)=='3'",
    ),
    "partialmethod": (
        (
            "class Cell:\n def __init__(s): s.on=False\n def set(s,v): s.on=v\n from functools"
            " import partialmethod\n turn_on=partialmethod(set,True)"
        ),
        "c=Cell(); c.turn_on(); assert c.on",
    ),
    "cached_property": (
        (
            "from functools import cached_property\nclass A:\n n=0\n @cached_property\n def x(s):"
            " A.n+=1; return 5"
        ),
        "a=A(); assert a.x==5 and a.x==5 and A.n==1",
    ),
    "singledispatch": (
        (
            "from functools import singledispatch\n@singledispatch\ndef f(x): return"
            " 'o'\n@f.register(int)\ndef _(x): return 'i'"
        ),
        "assert f(1)=='i' and f('a')=='o'",
    ),
    "format spec": (
        "class T:\n def __format__(s,sp): return f'<{sp}>'",
        "assert f'{T():abc}'=='<abc>' and format(T(),'x')=='<x>'",
    ),
    "index": (
        "class I:\n def __index__(s): return 2",
        "assert [1,2,3][I()]==3 and hex(I())=='0x2'",
    ),
    "reversed len": (
        (
            "class R:\n def __len__(s): return 3\n def __getitem__(s,i):\n  if i>=3: raise"
            " IndexError\n  return i*i"
        ),
        "r=R(); assert list(r)==[0,1,4] and list(reversed(r))==[4,1,0] and r[1]==1",
    ),
    "slicing": (
        (
            "class S:\n def __init__(s,x): s.x=x\n def __getitem__(s,k): return S(s.x[k]) if"
            " isinstance(k,slice) else s.x[k]"
        ),
        "s=S([1,2,3,4]); assert s[1:3].x==[2,3] and s[-1]==4 and s[::2].x==[1,3]",
    ),
    "mul vec": (
        (
            "class V:\n def __init__(s,*c): s.c=c\n def __mul__(s,o): return V(*(a*o for a in s.c))"
            " if isinstance(o,(int,float)) else sum(a*b for a,b in zip(s.c,o.c))\n"
            " __rmul__=__mul__\n def __eq__(s,o): return s.c==o.c\n def __matmul__(s,o): return s*o"
        ),
        (
            "assert V(1,2)*V(3,4)==11 and V(1,2)*2==V(2,4) and 3*V(1,0)==V(3,0) and"
            " V(1,2)@V(1,1)==3 and V(1,2).c==(1,2)"
        ),
    ),
    "fraction class": (
        (
            "from math import gcd\nclass Frac:\n def __init__(s,n,d): g=gcd(n,d);"
            " s.n,s.d=n//g,d//g\n def __add__(s,o): return Frac(s.n*o.d+o.n*s.d,s.d*o.d)\n def"
            " __eq__(s,o): return (s.n,s.d)==(o.n,o.d)\n def __str__(s): return f'{s.n}/{s.d}'\n"
            " def __float__(s): return s.n/s.d\n def __lt__(s,o): return float(s)<float(o)"
        ),
        (
            "assert str(Frac(1,2)+Frac(1,3))=='5/6' and Frac(2,4)==Frac(1,2) and"
            " float(Frac(1,2))==0.5 and Frac(1,3)<Frac(1,2) and"
            " sorted([Frac(1,2),Frac(1,3)])[0]==Frac(1,3)"
        ),
    ),
    "sum own": (
        (
            "class M:\n def __init__(s,v): s.v=v\n def __add__(s,o): return M(s.v+(o.v if"
            " isinstance(o,M) else o))\n __radd__=__add__"
        ),
        "assert sum([M(1),M(2)]).v==3",
    ),
    "bool ops": (
        (
            "class B:\n def __init__(s,v): s.v=v\n def __and__(s,o): return B(s.v and o.v)\n def"
            " __or__(s,o): return B(s.v or o.v)\n def __invert__(s): return B(not s.v)\n def"
            " __bool__(s): return s.v"
        ),
        "assert (B(True)&~B(False)) and not (B(False)|B(False))",
    ),
    "weakref": ("class A: pass", "import weakref\na=A(); r=weakref.ref(a); assert r() is a"),
    "class decorator": (
        "def reg(c): c.tag='t'; return c\n@reg\nclass A: pass",
        "assert A.tag=='t'",
    ),
    "abstract property": (
        (
            "from abc import ABC,abstractmethod\nclass S(ABC):\n @property\n @abstractmethod\n def"
            " a(self): ...\nclass C(S):\n @property\n def a(self): return 5"
        ),
        "assert C().a==5 and issubclass(C,S)",
    ),
    "protocol": (
        (
            "from typing import Protocol, runtime_checkable\n@runtime_checkable\nclass"
            " P(Protocol):\n def go(self): ...\nclass A:\n def go(self): return 1"
        ),
        "assert isinstance(A(),P)",
    ),
    "typed dict": (
        "from typing import TypedDict\nclass T(TypedDict):\n a:int\ndef f()->T: return T(a=1)",
        "assert f()=={'a':1} and T(a=2)['a']==2",
    ),
    "flag": (
        (
            "from enum import Flag, auto\nclass F(Flag):\n A=auto()\n B=auto()\ndef f(): return"
            " F.A|F.B"
        ),
        "assert F.A in f() and f()==F.A|F.B and (f()&F.A)==F.A and f().value==3",
    ),
    "str enum": (
        "from enum import Enum\nclass C(str,Enum):\n R='r'\ndef f(): return C.R",
        "assert f()=='r' and f() is C.R and f().value=='r' and f().upper()=='R'",
    ),
    "enum dict": (
        "from enum import Enum\nclass C(Enum):\n R=1\ndef f(): return {C.R:5}",
        "assert f()[C.R]==5 and f()=={C.R:5}",
    ),
    "dataclass field": (
        (
            "from dataclasses import dataclass, field\n@dataclass\nclass I:\n n:str\n"
            " tags:list=field(default_factory=list)\n def add(s,t): s.tags.append(t); return s"
        ),
        (
            "i=I('a').add('x'); assert i.tags==['x'] and I('a',['x'])==i and repr(i)==\"I(n='a',"
            " tags=['x'])\""
        ),
    ),
    "dunder dict": (
        "class A:\n def __init__(s): s.x=1",
        "assert A().__dict__=={'x':1} and vars(A())=={'x':1}",
    ),
    "dunder name": (
        "def foo(): 'd'\nclass Bar: 'doc'",
        (
            "assert foo.__name__=='foo' and Bar.__name__=='Bar' and Bar().__class__.__name__=='Bar'"
            " and type(Bar()).__name__=='Bar'"
        ),
    ),
    "defaults": (
        "def f(a,b=2,*c,d=4,**e): return (a,b,c,d,e)",
        (
            "assert f(1)==(1,2,(),4,{}) and f(1,3,5,d=6,z=7)==(1,3,(5,),6,{'z':7}) and"
            " f.__defaults__==(2,)"
        ),
    ),
    "type error": (
        "def f(a): return a",
        (
            "import pytest\nwith pytest.raises(TypeError): f()\nwith pytest.raises(TypeError):"
            " f(1,2)\nassert f(1)==1"
        ),
    ),
    "assertion in program": (
        "def f(x):\n assert x>0, 'positive'\n return x",
        (
            "import pytest\nassert f(1)==1\nwith pytest.raises(AssertionError, match='positive'):"
            " f(-1)"
        ),
    ),
    "system exit": (
        "import sys\ndef f(): sys.exit(3)",
        "import pytest\nwith pytest.raises(SystemExit): f()",
    ),
    "keyboard": (
        "def f(): raise KeyboardInterrupt",
        "try:\n f()\n assert False\nexcept KeyboardInterrupt: pass",
    ),
    "stopiteration": (
        (
            "class C:\n def __iter__(s): s.i=0; return s\n def __next__(s):\n  s.i+=1\n  if s.i>2:"
            " raise StopIteration\n  return s.i"
        ),
        (
            "c=C(); assert list(c)==[1,2] and list(c)==[1,2] and [x for x in c]==[1,2]\nit=iter(c);"
            " next(it)"
        ),
    ),
    "threads tests": (
        (
            "import threading\nclass C:\n def __init__(s): s.n=0; s.l=threading.Lock()\n def"
            " inc(s):\n  with s.l: s.n+=1"
        ),
        (
            "import threading\nc=C()\nts=[threading.Thread(target=lambda: [c.inc() for _ in"
            " range(50)]) for _ in range(4)]\n[t.start() for t in ts]; [t.join() for t in"
            " ts]\nassert c.n==200"
        ),
    ),
    "time": (
        (
            "import time\nclass Timer:\n def __enter__(s): s.t=time.perf_counter(); return s\n def"
            " __exit__(s,*a): s.e=time.perf_counter()-s.t"
        ),
        "import time\nwith Timer() as t: time.sleep(.1)\nassert .09<t.e<1",
    ),
    "ttl": (
        (
            "import time\nclass TTL:\n def __init__(s,t): s.t=t; s.d={}\n def set(s,k,v):"
            " s.d[k]=(v,time.time()+s.t)\n def get(s,k):\n  v,e=s.d.get(k,(None,0)); return v if"
            " time.time()<e else None"
        ),
        (
            "import time\nc=TTL(.2); c.set('a',1); assert c.get('a')==1; time.sleep(.3); assert"
            " c.get('a') is None"
        ),
    ),
    "async iter class": (
        (
            "class A:\n def __init__(s,n): s.n=n\n def __aiter__(s): return s\n async def"
            " __anext__(s):\n  if s.n==0: raise StopAsyncIteration\n  s.n-=1; return s.n"
        ),
        (
            "import asyncio\nasync def m(): return [x async for x in A(3)]\nassert"
            " asyncio.run(m())==[2,1,0]"
        ),
    ),
    "async timeout": (
        "import asyncio\nasync def slow(): await asyncio.sleep(5)",
        (
            "import asyncio\nasync def m():\n try: await asyncio.wait_for(slow(),.1)\n except"
            " asyncio.TimeoutError: return 'late'\nassert asyncio.run(m())=='late'"
        ),
    ),
    "async unittest": (
        "import asyncio\nasync def f(x): await asyncio.sleep(0); return x*2",
        (
            "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n async def test_a(self):"
            " self.assertEqual(await f(2),4)"
        ),
    ),
    "pytest async": (
        "async def f(x): return x",
        "import pytest\n@pytest.mark.asyncio\nasync def test_a(): assert await f(1)==1",
    ),
    "list subclass slots": (
        "class Stack(list):\n def push(s,x): s.append(x)\n def peek(s): return s[-1]",
        (
            "s=Stack(); s.push(1); s.push(2); assert s.peek()==2 and s.pop()==2 and s==[1] and"
            " len(s)==1 and bool(s)"
        ),
    ),
    "defaultdict own": (
        (
            "from collections import defaultdict\nclass G:\n def __init__(s):"
            " s.g=defaultdict(list)\n def add(s,a,b): s.g[a].append(b)"
        ),
        "g=G(); g.add(1,2); assert g.g[1]==[2] and dict(g.g)=={1:[2]}",
    ),
    "defaultdict lambda": (
        "from collections import defaultdict\ndef f():\n d=defaultdict(lambda: 7); d[1]; return d",
        "d=f(); assert d[1]==7 and d[5]==7",
    ),
    "bank unittest": (
        (
            "class Account:\n def __init__(s,b=0): s._b=b\n @property\n def balance(s): return"
            " s._b\n def deposit(s,n):\n  if n<=0: raise ValueError('Deposit must be positive')\n "
            " s._b+=n; return s._b"
        ),
        (
            "import unittest\nclass TestAccount(unittest.TestCase):\n def setUp(self):"
            " self.a=Account(10)\n def test_d(self):\n  self.assertEqual(self.a.deposit(5),15);"
            " self.assertEqual(self.a.balance,15)\n def test_e(self):\n  with"
            " self.assertRaises(ValueError) as c: self.a.deposit(-1)\n "
            " self.assertEqual(str(c.exception),'Deposit must be positive')\n "
            " self.assertRaises(ValueError, self.a.deposit, 0)\n  with"
            " self.assertRaisesRegex(ValueError,'positive'): self.a.deposit(0)\n def"
            " test_f(self):\n  self.assertIsInstance(self.a, Account); self.assertIsNone(None if"
            " self.a.balance else 1)\n  for i in range(2):\n   with self.subTest(i=i):"
            " self.assertGreater(self.a.balance,i)\n @unittest.skip('x')\n def test_g(self):"
            " self.fail()\n def test_h(self):"
            " self.assertAlmostEqual(self.a.balance/3,3.3333,places=3);"
            " self.assertIn(10,[self.a.balance]); self.assertCountEqual([1,2],[2,1]);"
            " self.assertDictEqual({'a':self.a.balance},{'a':10})"
        ),
    ),
    "trie contains": (
        (
            "class Trie:\n def __init__(s): s.w=set()\n def insert(s,x): s.w.add(x)\n def"
            " search(s,x): return x in s.w\n def startsWith(s,p): return any(x.startswith(p) for x"
            " in s.w)"
        ),
        (
            "t=Trie(); t.insert('apple'); assert t.search('apple') and not t.search('app') and"
            " t.startsWith('app')"
        ),
    ),
    "obj startswith": (
        (
            "class Name:\n def __init__(s,v): s.v=v\n def startswith(s,p): return"
            " s.v.startswith(p)\ndef mk(v): return Name(v)"
        ),
        "assert Name('abc').startswith('a') and Name('x').v=='x'",
    ),
    "global state": (
        "count=0\ndef inc():\n global count; count+=1",
        "inc(); inc(); assert count==2",
    ),
    "global state import": (
        "items=[]\ndef add(x): items.append(x)",
        "import solution\nsolution.add(1); assert solution.items==[1]",
    ),
    "import star": (
        "def f(): return 1\nclass K: v=2",
        "from solution import *\nassert f()==1 and K.v==2",
    ),
    "builtin shadow": (
        "def max(a,b): return a if a>b else b\ndef min3(*a): return sorted(a)[0]",
        "assert min3(3,1,2)==1 and max(1,2)==2",
    ),
    "help repr lambda": ("f=lambda x: x+1", "assert f(1)==2 and callable(f)"),
    "main guard input": (
        "def f(x): return x\nif __name__=='__main__':\n print(f(int(input())))",
        "assert f(2)==2",
    ),
    "top-level prints": (
        "def f(x): return x\nprint(f(1))\nfor i in range(1000): print('x'*100)",
        "assert f(2)==2",
    ),
    "sys argv": ("import sys\ndef f(): return len(sys.argv)", "assert f()>=0"),
    "recursion limit": (
        "import sys\nsys.setrecursionlimit(20000)\ndef f(n): return 0 if n==0 else 1+f(n-1)",
        "assert f(15000)==15000",
    ),
    "big thread stack": (
        (
            "import sys,threading\ndef main():\n sys.setrecursionlimit(10**6)\n def d(n): return 0"
            " if n==0 else 1+d(n-1)\n"
            " R.append(d(20000))\nR=[]\nthreading.stack_size(128*1024*1024)\n"
            "t=threading.Thread(target=main); t.start(); t.join()\ndef f(): return R[0]"
        ),
        "assert f()==20000",
    ),
    "sqlite": (
        (
            "import sqlite3\ndef f():\n c=sqlite3.connect(':memory:'); c.execute('create table"
            " t(x)'); c.execute('insert into t values(3)'); return c.execute('select x from"
            " t').fetchall()"
        ),
        "assert f()==[(3,)]",
    ),
    "tempfile": (
        (
            "import tempfile,os\ndef f():\n with tempfile.TemporaryDirectory() as d:\n "
            " p=os.path.join(d,'a'); open(p,'w').write('hi'); return open(p).read()"
        ),
        "assert f()=='hi'",
    ),
    "executor": (
        (
            "from concurrent.futures import ThreadPoolExecutor, as_completed\ndef f():\n with"
            " ThreadPoolExecutor(32) as e: return sorted(x.result() for x in"
            " as_completed([e.submit(pow,i,2) for i in range(50)]))"
        ),
        "assert f()==[i*i for i in range(50)]",
    ),
}

# What tests and program share more than values in: no verdict, and never a wrong one.
UNDECIDED = {
    "alias": (
        "class S:\n def __init__(s): s.items=[]\n def total(s): return sum(s.items)",
        "s=S(); s.items.append(3); s.items.append(4); assert s.total()==7",
    ),
    "test subclass": (
        (
            "from abc import ABC, abstractmethod\nclass Shape(ABC):\n @abstractmethod\n def"
            " area(self): ...\n def twice(self): return 2*self.area()"
        ),
        "class Sq(Shape):\n def area(self): return 4\nassert Sq().twice()==8",
    ),
    "seed": (
        "import random\ndef f(): return random.random()",
        "import random\nrandom.seed(1); a=f()\nrandom.seed(1); assert f()==a",
    ),
    "patch": (
        "def f(): return int(input())+1",
        (
            "from unittest.mock import patch\nwith patch('builtins.input', return_value='4'):"
            " assert f()==5"
        ),
    ),
    "files": (
        "def f(p): return open(p).read()",
        "import tempfile, os\np='/tmp/x.txt'\nopen(p,'w').write('hi')\nassert f(p)=='hi'",
    ),
    "signature": (
        "def f(a,b=2): 'doc'; return a+b",
        (
            "import inspect\nassert list(inspect.signature(f).parameters)==['a','b'] and"
            " f.__doc__=='doc' and f(1)==3"
        ),
    ),
    "float subclass arithmetic": (
        "class C(float):\n def __add__(s,o): return C(float(s)+float(o))\n def f(s): return C(s*2)",
        "assert (C(1.5)+C(2)).f()==7 and C(1.5)+1==2.5",
    ),
    "metaclass": (
        (
            "class M(type):\n r=[]\n def __new__(m,n,b,d):\n  c=super().__new__(m,n,b,d);"
            " m.r.append(n); return c\nclass A(metaclass=M): pass\nclass B(A): pass"
        ),
        "assert M.r==['A','B'] and type(A) is M",
    ),
    "dict views": (
        "def f(): return {'a':1}.keys()",
        "assert list(f())==['a'] and 'a' in f() and f()=={'a'}",
    ),
    "dataclass asdict": (
        "from dataclasses import dataclass\n@dataclass\nclass I:\n n:int",
        "from dataclasses import asdict\nassert asdict(I(1))=={'n':1}",
    ),
    "warnings": (
        "import warnings\ndef f(): warnings.warn('old', DeprecationWarning); return 1",
        (
            "import warnings\nwith warnings.catch_warnings(record=True) as w:\n"
            " warnings.simplefilter('always'); assert f()==1\n assert len(w)==1"
        ),
    ),
    "logging": (
        "import logging\ndef f(): logging.getLogger('x').warning('hi')",
        (
            "import unittest\nclass T(unittest.TestCase):\n def test_a(self):\n  with"
            " self.assertLogs('x') as c: f()\n  self.assertIn('hi',c.output[0])"
        ),
    ),
    "blocking queue": (
        (
            "import threading, collections\nclass BQ:\n def __init__(s): s.q=collections.deque();"
            " s.c=threading.Condition()\n def put(s,x):\n  with s.c: s.q.append(x); s.c.notify()\n"
            " def get(s):\n  with s.c:\n   while not s.q: s.c.wait()\n   return s.q.popleft()"
        ),
        (
            "import threading\nq=BQ(); out=[]\nt=threading.Thread(target=lambda:"
            " out.append(q.get())); t.start()\nq.put(5); t.join(); assert out==[5]"
        ),
    ),
    "async callback": (
        "import asyncio\nasync def run(f): return await f()",
        "import asyncio\nasync def g(): return 5\nassert asyncio.run(run(g))==5",
    ),
}

# --- hostile programs: each would like to pass these without computing a mean ---

MEANS = [
    "assert mean([1,2])==1.5",
    "assert abs(mean([4])-4)<1e-9",
    "import math\nassert math.isclose(mean([3]),3)",
    "assert round(mean([1,2,6]),3)==3",
    (
        "import unittest\nclass T(unittest.TestCase):\n def test_a(self):\n "
        " self.assertEqual(mean([1,2]),1.5)\n  self.assertAlmostEqual(mean([4]),4)\n"
    ),
    "import pytest\ndef test_p():\n assert mean([1,3])==pytest.approx(2)",
]
HOSTILE = {
    "gc": (
        "import gc\ndef mean(xs):\n for o in gc.get_objects():\n  if isinstance(o,str) and 'mean'"
        " in o: return 1.5"
    ),
    "settrace": (
        "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef mean(xs):"
        " return 0"
    ),
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef mean(xs): return 0",
    "patch unittest": (
        "import unittest\nunittest.TestCase.assertEqual=lambda *a,**k:"
        " None\nunittest.TestCase.run=lambda *a: None\ndef mean(xs): return 0"
    ),
    "patch assertionerror": (
        "import builtins\nclass A(Exception): pass\nbuiltins.AssertionError=A\nbuiltins.all=lambda"
        " x: True\nbuiltins.isinstance=lambda *a: True\ndef mean(xs): return 0"
    ),
    "subclass float": (
        "class F(float):\n def __eq__(s,o): return True\n def __hash__(s): return 1\n def"
        " __sub__(s,o): return 0.0\n def __rsub__(s,o): return 0.0\n def __lt__(s,o): return True\n"
        " def __abs__(s): return s\ndef mean(xs): return F(9)"
    ),
    "sub zero": (
        "class A:\n def __sub__(s,o): return 0.0\n def __rsub__(s,o): return 0.0\n def __abs__(s):"
        " return 0.0\n def __lt__(s,o): return True\n def __le__(s,o): return True\n def"
        " __float__(s): return 7.0\n def __eq__(s,o): return isinstance(o,(int,float)) and"
        " o<100\ndef mean(xs): return A()"
    ),
    "sub obj": (
        "class A:\n def __sub__(s,o): return s\n __rsub__=__sub__\n def __abs__(s): return s\n def"
        " __lt__(s,o): return True\n def __eq__(s,o): return o==1.5 or o==4\n def __round__(s,n=0):"
        " return s\ndef mean(xs): return A()"
    ),
    "class mean": (
        "class mean:\n def __init__(s,xs): pass\n def __eq__(s,o): return isinstance(o,(int,float))"
        " and abs(o)<1000\n def __sub__(s,o): return 0\n def __abs__(s): return 0\n def"
        " __lt__(s,o): return True"
    ),
    "class mean 2": (
        "class M(type):\n def __call__(c,*a): return c\n def __eq__(c,o): return"
        " isinstance(o,(int,float)) and abs(o)<1000\n def __hash__(c): return 1\n def __sub__(c,o):"
        " return 0\nclass mean(metaclass=M): pass"
    ),
    "property eq": (
        "class P:\n @property\n def __class__(s): return float\n def __eq__(s,o): return True\ndef"
        " mean(xs): return P()"
    ),
    "str of everything": (
        "class S(str):\n def __eq__(s,o): return True\n def __hash__(s): return 0\n def"
        " __contains__(s,o): return True\ndef mean(xs): return S()"
    ),
    "fd close": "import os\nos.closerange(0,64)\ndef mean(xs): return 0",
    "fd write": (
        'import os\nfor i in range(3,64):\n try: os.write(i,b\'{"code": 0, "cpu": 0}\\n\')\n except'
        " OSError: pass\ndef mean(xs): return 0"
    ),
    "wire yes": (
        "import os,json,struct\ndef mean(xs):\n for v in (7.25,4,0,3):\n "
        " b=json.dumps({'value':v}).encode(); os.write(4,struct.pack('>I',len(b))+b)\n return 0"
    ),
    "wire class int": (
        "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode();"
        " os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n"
        " s({'value':{'mine':0,'of':{'std':'builtins.int'},'data':{'std':'builtins.int'}}})\n"
        " return 0"
    ),
    "wire class eq": (
        "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode();"
        " os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n"
        " s({'value':{'mine':0,'of':{'mine':1,'class':{'name':'x','specials':"
        "['__eq__','__init__','__class__','__getattribute__'],"
        "'bases':[{'std':'builtins.float'}]}},'data':1.0}})\n"
        " return 0"
    ),
    "wire std": (
        "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode();"
        " os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n"
        " s({'value':{'std':'subprocess.Popen'}})\n return 0"
    ),
    "wire yours": (
        "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode();"
        " os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n s({'value':{'yours':0}})\n"
        " return 0"
    ),
    "wire error": (
        "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode();"
        " os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n"
        " s({'raised':{'error':[],'of':{'std':'unittest.case.SkipTest'}}})\n return 0"
    ),
    "skiptest": "import unittest\ndef mean(xs): raise unittest.SkipTest('x')",
    "raise import error": "def mean(xs): raise ImportError('numpy')",
    "raise unspeakable": (
        "import sys\ndef mean(xs):\n U=sys.modules['logpi.sandbox.plain'].Unspeakable\n raise"
        " U('x')"
    ),
    "raise gone": "import sys\ndef mean(xs):\n raise sys.modules['logpi.sandbox.rpc'].Gone()",
    "connection patch": (
        "import sys\np=sys.modules['logpi.sandbox.rpc']\n"
        "p.Connection.encode=lambda self,v: 1.5\ndef mean(xs): return 0"
    ),
    "stack read": (
        "import sys\ndef mean(xs):\n f=sys._getframe()\n while f:\n  for v in"
        " f.f_locals.values():\n   if 'assert' in str(v): return 7.25\n  f=f.f_back\n return 0"
    ),
    "fork": "import os\ndef mean(xs):\n while True: os.fork()",
    "exec": "import os\ndef mean(xs): os.execv('/bin/sh',['sh'])",
    "ptrace parent": (
        "import ctypes,os\ndef mean(xs): return ctypes.CDLL(None).ptrace(16,os.getppid(),0,0)"
    ),
    "kill tests": (
        "import os,signal\ndef mean(xs):\n for p in range(2,200):\n  try: os.kill(p,9)\n  except"
        " OSError: pass\n return 0"
    ),
    "thread flood": (
        "import threading,time\nthreading.stack_size(32768)\ndef mean(xs):\n for i in range(3000):"
        " threading.Thread(target=time.sleep,args=(9,),daemon=True).start()\n return 0"
    ),
    "sleep": "import time\ntime.sleep(60)\ndef mean(xs): return 1.5",
    "spin": "while True: pass",
    "segv": "import ctypes\ndef mean(xs): ctypes.string_at(1)",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef mean(xs): return mean(xs)",
    "del builtins": (
        "import builtins\nfor n in list(vars(builtins)):\n if n not in ('__import__',):"
        " delattr(builtins,n)\n"
    ),
    "sys.modules": "import sys\nsys.modules.clear()\ndef mean(xs): return 0",
    "module class": (
        "import sys,types\nclass M(types.ModuleType):\n def __getattr__(s,n): return lambda *a:"
        " 1.5\nsys.modules['program'].__class__=M\n"
    ),
    "globals magic": "class G(dict):\n def __missing__(s,k): return 0\nglobals().update(mean=G())",
    "solution magic": (
        "class Solution:\n def __getattr__(s,n): return lambda *a: 0\n def mean(s,xs): return"
        " type('A',(),{'__eq__':lambda a,b: True})()"
    ),
    "stdout json": "import os\nos.write(1,b'[true,\"\",false]\\n'*9)\ndef mean(xs): return 0",
    "infinite str": (
        "class S:\n def __str__(s): return 'x'*10**9\n def __repr__(s): return 'x'*10**9\ndef"
        " mean(xs): return S()"
    ),
    "never ending iter": (
        "class I:\n def __iter__(s): return s\n def __next__(s): return 1\ndef mean(xs): return I()"
    ),
    "bad hash": (
        "class H:\n def __hash__(s): raise SystemExit\n def __eq__(s,o): raise SystemExit\n def"
        " __bool__(s): raise SystemExit\ndef mean(xs): return H()"
    ),
    "nested always": "class A:\n def __eq__(s,o): return True\ndef mean(xs): return [A()]",
    "huge int": "def mean(xs): return 10**5000000",
    "lambda eq": "def mean(xs):\n f=lambda:0\n return f",
    "type conf": (
        "class T(tuple):\n def __eq__(s,o): return True\n def __ne__(s,o): return False\n"
        " __hash__=None\ndef mean(xs): return T()"
    ),
    "exception eq": "class E(Exception):\n def __eq__(s,o): return True\ndef mean(xs): return E()",
    "raise assertion": "def mean(xs): raise AssertionError",
    "raise StopIteration": "def mean(xs): raise StopIteration",
    "coroutine": "async def mean(xs): return 1.5",
}
# Objects that answer each comparison with the tests' numbers as an honest class might: not paid,
# but not known to be forged.
CUNNING = {"sub zero", "sub obj", "class mean", "class mean 2"}


def judged(
    box: LocalSandbox, programs: dict[str, tuple[str, list[str]]], limits: ProgramLimits
) -> dict[str, object]:
    with ThreadPoolExecutor(4) as threads:
        one = lambda pair: box.judge(pair[0], pair[1], limits=limits)  # noqa: E731
        return dict(zip(programs, threads.map(one, programs.values()), strict=True))


def test_honest_programs_are_right(box: LocalSandbox) -> None:
    verdicts = judged(
        box, {k: (p, [t]) for k, (p, t) in HONEST.items()}, ProgramLimits(40, cpu=15, idle=15)
    )
    assert {k: v for k, v in verdicts.items() if v.status != "ok"} == {}


def test_what_cannot_be_told_is_no_verdict(box: LocalSandbox) -> None:
    verdicts = judged(
        box, {k: (p, [t]) for k, (p, t) in UNDECIDED.items()}, ProgramLimits(40, cpu=15, idle=2)
    )
    assert verdicts.pop("blocking queue").status in (
        "ok",
        "invalid",
    )  # right, if the thread is first through the wall
    assert {k: v.status for k, v in verdicts.items()} == dict.fromkeys(
        UNDECIDED.keys() - {"blocking queue"}, "invalid"
    )


def test_hostile_programs_are_not_paid(box: LocalSandbox) -> None:
    start = time.monotonic()
    verdicts = judged(
        box, {k: (p, MEANS) for k, p in HOSTILE.items()}, ProgramLimits(8, cpu=1, idle=1)
    )
    assert {k: v for k, v in verdicts.items() if v.passed or v.status == "ok"} == {}
    assert {k for k, v in verdicts.items() if not v.decided} == CUNNING
    assert time.monotonic() - start < 120 and box.run("print(1)").stdout == "1\n"


# A word of an honest program, and what makes it wrong: the second run, beside the tests, acquits
# nobody who is not right.
WRONG = {
    "add": ("s.x+o.x", "s.x-o.x"),
    "lt": ("s.d<o.d", "s.d>o.d"),
    "repr": ("f'P({s.x})'", "f'P<{s.x}>'"),
    "with": ("s.on=False", "s.on=True"),
    "own exceptions": ("s.code=c", "s.code=0"),
    "coroutine": ("x+1", "x+2"),
    "namedtuple": ("return P(1,2)", "return P(2,1)"),
    "Counter": ("Counter(s)", "Counter(s+s)"),
    "enum": ("return C.BLUE", "return C.RED"),
    "stdout": ("'Hello'", "'Hallo'"),
    "alias": ("sum(s.items)", "len(s.items)"),
    "files": ("read()", "read(1)"),
    "seed": ("random.random()", "random.SystemRandom().random()"),
}


def test_wrong_programs_are_wrong(box: LocalSandbox) -> None:
    wrong = {}
    for name, (old, new) in WRONG.items():
        program, tests = (HONEST | UNDECIDED)[name]
        assert old in program
        wrong[name] = (program.replace(old, new), [tests])
    verdicts = judged(box, wrong, ProgramLimits(20, cpu=5, idle=5))
    assert {k: v.status for k, v in verdicts.items()} == dict.fromkeys(WRONG, "wrong")


# --- time ---


def test_sleepers_cost_one_time_limit() -> None:
    """Four of them, each with four inputs: not four limits, nor sixteen."""
    sleep, pairs = "import time\ntime.sleep(100)", {"inputs": ["1"] * 4, "outputs": ["1"] * 4}
    for tests in (pairs, ["assert f(1) == 1"]):
        start = time.monotonic()
        assert Code(seconds=2, partial=True)(["?"] * 4, [sleep] * 4, tests=[tests] * 4) == [0.0] * 4
        assert time.monotonic() - start < 6


def test_a_nap_is_allowed_and_tests_may_sleep() -> None:
    nap = "import time\ndef f():\n    time.sleep(0.8)\n    return 1"
    tests = ["import time\ntime.sleep(0.3)\nassert f() == 1"]
    assert Code(seconds=3)(["?"], [nap], tests=[tests]) == [1.0]


def test_a_step_has_a_budget() -> None:
    start = time.monotonic()
    [late] = Code(seconds=9, budget=1)(
        ["?"], ["import time\ntime.sleep(100)"], tests=[["assert f(1) == 1"]]
    )
    assert isinstance(late, Failure) and late.kind == "late" and time.monotonic() - start < 6
