"""Honest programs of unusual form and hostile ones, each against tests, under each kind of walls: nobody honest is judged wrong, nobody
hostile is paid. Left out: what a program may do to the machine (`test_sandbox.py`), how tests are read (`test_demands.py`)."""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from logpi.rewards import Code, Failure
from logpi.sandbox import Limits, Sandbox, SandboxError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

WALLS = ["landlock", *([pytest.param("bubblewrap", marks=pytest.mark.slow)] if shutil.which("bwrap") else [])]


@pytest.fixture(scope="module", params=WALLS)
def box(request):
    made = Sandbox(request.param)
    try:
        made.start()
    except SandboxError as error:
        pytest.skip(str(error))
    yield made
    made.close()


# --- honest programs: name -> (program, tests that it passes beside them) -----------------------------------------------

HONEST = {
    'add': ('class V:\n def __init__(s,x,y): s.x,s.y=x,y\n def __add__(s,o): return V(s.x+o.x,s.y+o.y)\n def __eq__(s,o): return isinstance(o,V) and (s.x,s.y)==(o.x,o.y)', 'assert V(1,2)+V(3,4)==V(4,6)\nassert (V(1,2)+V(3,4)).x==4'),
    'lt': ('class T:\n def __init__(s,d): s.d=d\n def __lt__(s,o): return s.d<o.d', 'assert T(1)<T(2)\nassert not T(2)<T(1)\nassert [t.d for t in sorted([T(3),T(1),T(2)])]==[1,2,3]'),
    'repr': ("class P:\n def __init__(s,x): s.x=x\n def __repr__(s): return f'P({s.x})'", "assert repr(P(3))=='P(3)'\nassert str(P(3))=='P(3)'\nassert f'{P(3)}'=='P(3)'"),
    'with': ('class M:\n def __enter__(s): s.on=True; return s\n def __exit__(s,*a): s.on=False', 'with M() as m:\n assert m.on\nassert not m.on'),
    'with swallow': ('class S:\n def __enter__(s): return s\n def __exit__(s,t,v,tb): s.t=t; return t is ValueError', "with S() as s:\n raise ValueError('x')\nassert s.t is ValueError"),
    'contextmanager': ('from contextlib import contextmanager\nlog=[]\n@contextmanager\ndef m():\n log.append(1)\n yield 5\n log.append(2)', 'with m() as x:\n assert x==5\nassert log==[1,2]'),
    'isinstance': ('class A: pass\nclass B(A): pass', 'assert isinstance(B(),A)\nassert issubclass(B,A)\nassert not isinstance(A(),B)\nassert type(B()) is B'),
    'abc': ('from abc import ABC, abstractmethod\nclass S(ABC):\n @abstractmethod\n def area(self): ...\nclass Sq(S):\n def __init__(self,a): self.a=a\n def area(self): return self.a**2', 'assert Sq(3).area()==9\nassert isinstance(Sq(3),S)\ntry:\n S()\n assert False\nexcept TypeError: pass'),
    'own exceptions': ("class E(Exception):\n def __init__(s,c): super().__init__(f'code {c}'); s.code=c\ndef f(): raise E(7)", "try:\n f()\n assert False\nexcept E as e:\n assert e.code==7 and str(e)=='code 7'"),
    'own exception hierarchy': ("class B(Exception): pass\nclass C(B, ValueError): pass\ndef f(): raise C('x')", "import pytest\nwith pytest.raises(B): f()\nwith pytest.raises(ValueError): f()\nwith pytest.raises(C, match='x'): f()"),
    'unittest own exception': ("class InsufficientFunds(Exception): pass\nclass Account:\n def __init__(s,b): s.balance=b\n def withdraw(s,n):\n  if n>s.balance: raise InsufficientFunds(f'need {n}')\n  s.balance-=n", "import unittest\nfrom solution import Account, InsufficientFunds\nclass T(unittest.TestCase):\n def setUp(self): self.a=Account(10)\n def test_ok(self):\n  self.a.withdraw(3); self.assertEqual(self.a.balance,7)\n def test_bad(self):\n  with self.assertRaises(InsufficientFunds): self.a.withdraw(11)\nif __name__=='__main__': unittest.main()"),
    'coroutine': ('import asyncio\nasync def f(x):\n await asyncio.sleep(.01)\n return x+1', 'import asyncio\nassert asyncio.run(f(1))==2'),
    'gather': ('import asyncio\nasync def f(x):\n await asyncio.sleep(.2)\n return x', 'import asyncio,time\nasync def main():\n t=time.time()\n r=await asyncio.gather(*(f(i) for i in range(5)))\n assert time.time()-t<.6\n return r\nassert asyncio.run(main())==[0,1,2,3,4]'),
    'async queue': ('import asyncio\nclass Q:\n def __init__(s): s.q=asyncio.Queue(1)\n async def put(s,x): await s.q.put(x)\n async def get(s): return await s.q.get()', 'import asyncio\nasync def main():\n q=Q()\n async def prod():\n  for i in range(3): await q.put(i)\n async def cons(): return [await q.get() for _ in range(3)]\n _, r = await asyncio.gather(prod(), cons())\n return r\nassert asyncio.run(main())==[0,1,2]'),
    'async gen': ('async def g(n):\n for i in range(n): yield i', 'import asyncio\nasync def main(): return [x async for x in g(3)]\nassert asyncio.run(main())==[0,1,2]'),
    'async with': ('class R:\n async def __aenter__(s): s.open=True; return s\n async def __aexit__(s,*a): s.open=False', 'import asyncio\nasync def main():\n async with R() as r:\n  assert r.open\n assert not r.open\nasyncio.run(main())'),
    'async error': ("async def f(): raise KeyError('k')", 'import asyncio\ntry:\n asyncio.run(f())\n assert False\nexcept KeyError: pass'),
    'namedtuple': ("from collections import namedtuple\nP=namedtuple('P','x y')\ndef f(): return P(1,2)", 'p=f()\nassert p.x==1 and p==(1,2) and p[1]==2\na,b=p\nassert b==2 and p._replace(x=5).x==5\nassert P(1,2)==f() and isinstance(p,tuple) and len(p)==2'),
    'NamedTuple': ('from typing import NamedTuple\nclass P(NamedTuple):\n x:int\n y:int=0\n def norm(self): return self.x+self.y', 'assert P(1).norm()==1 and P(1,2)==(1,2) and P(1,2).y==2 and P(x=3).x==3'),
    'Counter': ('from collections import Counter\ndef f(s): return Counter(s)', "c=f('aab')\nassert c.most_common(1)==[('a',2)] and c['z']==0 and c=={'a':2,'b':1}"),
    'defaultdict': ('from collections import defaultdict\ndef f(): \n d=defaultdict(list); d[1].append(2); return d', 'd=f(); assert d[1]==[2] and d[9]==[]'),
    'OrderedDict': ('from collections import OrderedDict\ndef f(): return OrderedDict(a=1,b=2)', "d=f(); d.move_to_end('a'); assert list(d)==['b','a']"),
    'dict subclass': ('class D(dict):\n def __getattr__(s,k): return s[k]\n def twice(s): return {k:2*v for k,v in s.items()}', "d=D(a=1); d['b']=2\nassert d.a==1 and d.b==2 and d.twice()=={'a':2,'b':4} and d=={'a':1,'b':2} and len(d)==2 and 'a' in d and isinstance(d,dict) and sorted(d)==['a','b'] and dict(d)=={'a':1,'b':2}"),
    'list subclass': ('class L(list):\n def total(s): return sum(s)', 'l=L([1,2]); l.append(3)\nassert l.total()==6 and l==[1,2,3] and l[-1]==3 and len(l)==3 and list(l)==[1,2,3] and [1,2,3]==l and sorted(l,reverse=True)==[3,2,1] and isinstance(l,list)'),
    'tuple subclass': ('class T(tuple):\n def mid(s): return s[len(s)//2]', 't=T((1,2,3)); assert t.mid()==2 and t==(1,2,3) and t+(4,)==(1,2,3,4)'),
    'int subclass': ('class Age(int):\n def adult(s): return s>=18', 'assert Age(20).adult() and not Age(3).adult() and Age(3)==3 and Age(3)+1==4'),
    'str subclass': ("class S(str):\n def shout(s): return s.upper()+'!'", "assert S('a').shout()=='A!' and S('a')=='a' and S('a')+'b'=='ab'"),
    'enum': ('from enum import Enum\nclass C(Enum):\n RED=1\n BLUE=2\ndef f(): return C.BLUE', "assert f() is C.BLUE and f()==C.BLUE and C.RED.value==1 and C['RED'] is C.RED and C(2) is C.BLUE and [c.name for c in C]==['RED','BLUE'] and len(C)==2 and f()!=C.RED"),
    'intenum': ('from enum import IntEnum\nclass C(IntEnum):\n A=1\n B=2\ndef f(): return C.B', "assert f()==2 and f()>C.A and f().name=='B'"),
    'dataclass': ('from dataclasses import dataclass\n@dataclass(order=True,frozen=True)\nclass P:\n x:int\n y:int=0', "assert P(1,2)==P(1,2) and P(1)!=P(2) and P(1)<P(2) and repr(P(1,2))=='P(x=1, y=2)' and len({P(1),P(1)})==1\ntry:\n p=P(1); p.x=3\n assert False\nexcept AttributeError: pass"),
    'deep list': ('def f(n):\n x=[]\n for i in range(n): x=[x]\n return x', 'x=f(500)\nd=0\nwhile x: x=x[0]; d+=1\nassert d==500'),
    'deep tree': ('class N:\n def __init__(s,v,l=None,r=None): s.v,s.l,s.r=v,l,r\ndef build(n):\n t=None\n for i in range(n): t=N(i,t)\n return t', 't=build(3000)\nn=0\nwhile t: n+=1; t=t.l\nassert n==3000'),
    'deep tuple tree': ('def f(n): return (n, f(n-1)) if n else ()', 't=f(300)\nn=0\nwhile t: n+=1; t=t[1]\nassert n==300'),
    'set of own': ('class P:\n def __init__(s,x): s.x=x\n def __eq__(s,o): return s.x==o.x\n def __hash__(s): return hash(s.x)', 'assert len({P(1),P(1),P(2)})==2 and {P(1):3}[P(1)]==3 and P(1) in [P(1)]'),
    'contains': ('class S:\n def __init__(s,xs): s.xs=xs\n def __contains__(s,x): return x in s.xs\n def __len__(s): return len(s.xs)', 's=S([1,2]); assert s.xs==[1,2]; assert 1 in s and 3 not in s and len(s)==2'),
    'iterator class': ('class C:\n def __init__(s,n): s.n=n\n def __iter__(s): return s\n def __next__(s):\n  if s.n==0: raise StopIteration\n  s.n-=1; return s.n', 'assert list(C(3))==[2,1,0]\nassert sum(C(4))==6'),
    'getitem': ('class M:\n def __init__(s): s.d={}\n def __getitem__(s,k): return s.d[k]\n def __setitem__(s,k,v): s.d[k]=v\n def __delitem__(s,k): del s.d[k]', "m=M(); m['a']=1; assert m['a']==1; del m['a']\ntry:\n m['a']\n assert False\nexcept KeyError: pass"),
    'call': ('class A:\n def __init__(s,n): s.n=n\n def __call__(s,x): return s.n+x', 'a=A(2); assert a(3)==5 and callable(a)'),
    'decorator': ('import functools\ndef deco(f):\n @functools.wraps(f)\n def w(*a,**k): w.calls+=1; return f(*a,**k)\n w.calls=0\n return w', "@deco\ndef g(x): return x*2\nassert g(3)==6 and g.calls==1 and g.__name__=='g'"),
    'closure': ('def counter():\n n=0\n def inc():\n  nonlocal n; n+=1; return n\n return inc', 'c=counter(); assert c()==1 and c()==2'),
    'generator send': ('def avg():\n t=n=0; a=None\n while True:\n  x=yield a; t+=x; n+=1; a=t/n', 'g=avg(); next(g); assert g.send(10)==10 and g.send(20)==15; g.close()'),
    'property': ('class T:\n def __init__(s,c): s.c=c\n @property\n def f(s): return s.c*9/5+32\n @f.setter\n def f(s,v): s.c=(v-32)*5/9\n @classmethod\n def zero(cls): return cls(0)\n @staticmethod\n def k(c): return c+273', 't=T(100); assert t.f==212; t.f=32; assert t.c==0 and T.zero().c==0 and T.k(0)==273'),
    'plain claim': ('class Money:\n def __init__(s,v): s.v=v\n def __eq__(s,o): return s.v==(o.v if isinstance(o,Money) else o)\n def __mul__(s,k): return Money(s.v*k)\n def __rmul__(s,k): return s*k', 'm=Money(5); assert m.v==5 and m==5 and (m*2).v==10 and (2*m).v==10'),
    'linked list': ('class Node:\n def __init__(s,v,n=None): s.val,s.next=v,n\ndef rev(h):\n p=None\n while h: h.next,p,h=p,h,h.next\n return p', 'h=Node(1,Node(2,Node(3))); r=rev(h); out=[]\nwhile r: out.append(r.val); r=r.next\nassert out==[3,2,1]'),
    "tests' tree": ('class Solution:\n def depth(self, root: Optional[TreeNode]) -> int:\n  return 0 if not root else 1+max(self.depth(root.left),self.depth(root.right))', 'class TreeNode:\n def __init__(self,val=0,left=None,right=None): self.val,self.left,self.right=val,left,right\nassert Solution().depth(TreeNode(1,TreeNode(2,TreeNode(3))))==3'),
    'copy': ('class P:\n def __init__(s,x): s.x=x', 'import copy\np=P([1]); q=copy.deepcopy(p); q.x=[2]\nassert p.x==[1] and q.x==[2]'),
    'functools': ('def f(x): return x+1', 'from functools import reduce, partial\nassert reduce(lambda a,b: f(a)+b,[1,2,3])==8 and partial(f,3)()==4'),
    'raises json': ('import json\ndef f(s): return json.loads(s)', "import json\ntry:\n f('{')\n assert False\nexcept json.JSONDecodeError: pass"),
    'lru cache': ('from functools import lru_cache\n@lru_cache(None)\ndef fib(n): return n if n<2 else fib(n-1)+fib(n-2)', 'assert fib(50)==12586269025 and fib.cache_info().hits>0'),
    'timedelta': ('from datetime import datetime, timedelta\ndef f(d): return d+timedelta(days=1)', 'from datetime import datetime, timedelta\nassert f(datetime(2020,1,1))==datetime(2020,1,2) and f(datetime(2020,1,1))-datetime(2020,1,1)==timedelta(1)'),
    'matrix eq list': ('class Matrix:\n def __init__(s,r): s.r=r\n def __matmul__(s,o): return Matrix([[sum(a*b for a,b in zip(x,y)) for y in zip(*o.r)] for x in s.r])\n def __getitem__(s,i): return s.r[i]', 'm=Matrix([[1,2],[3,4]]); p=m@m; assert p[0]==[7,10] and p.r==[[7,10],[15,22]]'),
    'callbacks threads': ('from concurrent.futures import ThreadPoolExecutor\ndef pmap(f,xs):\n with ThreadPoolExecutor(32) as e: return list(e.map(f,xs))', 'assert pmap(lambda x:x*x,list(range(100)))==[i*i for i in range(100)]'),
    'random args': ('def f(xs): return sorted(xs)', 'import random\nfor _ in range(20):\n xs=[random.random() for _ in range(10)]\n assert f(xs)==sorted(xs)'),
    'many calls': ('def f(x): return x*2', 'assert all(f(i)==2*i for i in range(20000))'),
    'big list': ('def f(n): return list(range(n))', 'assert f(10**6)==list(range(10**6))'),
    'stdlib names': ('def queue(x): return x\ndef code(x): return x\ndef string(x): return x', "assert queue(1)==1 and code(2)==2 and string('a')=='a'"),
    'match': ("import re\ndef f(s): return re.match(r'(\\d+)-(\\d+)',s)", "m=f('1-2'); assert m.group(1)=='1' and m.groups()==('1','2') and m"),
    'stdout': ("def hello(n): print('Hello', n)", "import io, contextlib\nb=io.StringIO()\nwith contextlib.redirect_stdout(b): hello('x')\nassert b.getvalue()=='Hello x\\n'"),
    'generic': ("from typing import Generic, TypeVar\nT=TypeVar('T')\nclass Box(Generic[T]):\n def __init__(s,x:T): s.x=x", "b=Box[int](3); assert b.x==3 and Box('a').x=='a'"),
    'operator kinds': ('class N:\n def __init__(s,v): s.v=v\n def __sub__(s,o): return N(s.v-o.v)\n def __neg__(s): return N(-s.v)\n def __abs__(s): return N(abs(s.v))\n def __float__(s): return float(s.v)\n def __int__(s): return int(s.v)\n def __bool__(s): return s.v!=0\n def __iadd__(s,o): s.v+=o.v; return s\n def __round__(s,n=0): return round(s.v,n)', 'n=N(3)-N(5); assert n.v==-2 and (-n).v==2 and abs(n).v==2 and float(n)==-2.0 and int(n)==-2 and bool(n) and not N(0)\nn+=N(10); assert n.v==8 and round(N(1.234),1)==1.2'),
}  # fmt: skip

# What tests and program share more than values in: no verdict, and never a wrong one.
UNDECIDED = {
    'alias': ('class S:\n def __init__(s): s.items=[]\n def total(s): return sum(s.items)', 's=S(); s.items.append(3); s.items.append(4); assert s.total()==7'),
    'test subclass': ('from abc import ABC, abstractmethod\nclass Shape(ABC):\n @abstractmethod\n def area(self): ...\n def twice(self): return 2*self.area()', 'class Sq(Shape):\n def area(self): return 4\nassert Sq().twice()==8'),
    'seed': ('import random\ndef f(): return random.random()', 'import random\nrandom.seed(1); a=f()\nrandom.seed(1); assert f()==a'),
    'patch': ('def f(): return int(input())+1', "from unittest.mock import patch\nwith patch('builtins.input', return_value='4'): assert f()==5"),
    'files': ('def f(p): return open(p).read()', "import tempfile, os\np='/tmp/x.txt'\nopen(p,'w').write('hi')\nassert f(p)=='hi'"),
    'signature': ("def f(a,b=2): 'doc'; return a+b", "import inspect\nassert list(inspect.signature(f).parameters)==['a','b'] and f.__doc__=='doc' and f(1)==3"),
}  # fmt: skip

# --- hostile programs: each would like to pass these without computing a mean -------------------------------------------

MEANS = [
    'assert mean([1,2])==1.5',
    'assert abs(mean([4])-4)<1e-9',
    'import math\nassert math.isclose(mean([3]),3)',
    'assert round(mean([1,2,6]),3)==3',
    'import unittest\nclass T(unittest.TestCase):\n def test_a(self):\n  self.assertEqual(mean([1,2]),1.5)\n  self.assertAlmostEqual(mean([4]),4)\n',
    'import pytest\ndef test_p():\n assert mean([1,3])==pytest.approx(2)',
]  # fmt: skip
HOSTILE = {
    'gc': "import gc\ndef mean(xs):\n for o in gc.get_objects():\n  if isinstance(o,str) and 'mean' in o: return 1.5",
    'settrace': 'import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef mean(xs): return 0',
    'atexit': 'import atexit, os\natexit.register(lambda: os._exit(0))\ndef mean(xs): return 0',
    'patch unittest': 'import unittest\nunittest.TestCase.assertEqual=lambda *a,**k: None\nunittest.TestCase.run=lambda *a: None\ndef mean(xs): return 0',
    'patch assertionerror': 'import builtins\nclass A(Exception): pass\nbuiltins.AssertionError=A\nbuiltins.all=lambda x: True\nbuiltins.isinstance=lambda *a: True\ndef mean(xs): return 0',
    'subclass float': 'class F(float):\n def __eq__(s,o): return True\n def __hash__(s): return 1\n def __sub__(s,o): return 0.0\n def __rsub__(s,o): return 0.0\n def __lt__(s,o): return True\n def __abs__(s): return s\ndef mean(xs): return F(9)',
    'sub zero': 'class A:\n def __sub__(s,o): return 0.0\n def __rsub__(s,o): return 0.0\n def __abs__(s): return 0.0\n def __lt__(s,o): return True\n def __le__(s,o): return True\n def __float__(s): return 7.0\n def __eq__(s,o): return isinstance(o,(int,float)) and o<100\ndef mean(xs): return A()',
    'sub obj': 'class A:\n def __sub__(s,o): return s\n __rsub__=__sub__\n def __abs__(s): return s\n def __lt__(s,o): return True\n def __eq__(s,o): return o==1.5 or o==4\n def __round__(s,n=0): return s\ndef mean(xs): return A()',
    'class mean': 'class mean:\n def __init__(s,xs): pass\n def __eq__(s,o): return isinstance(o,(int,float)) and abs(o)<1000\n def __sub__(s,o): return 0\n def __abs__(s): return 0\n def __lt__(s,o): return True',
    'class mean 2': 'class M(type):\n def __call__(c,*a): return c\n def __eq__(c,o): return isinstance(o,(int,float)) and abs(o)<1000\n def __hash__(c): return 1\n def __sub__(c,o): return 0\nclass mean(metaclass=M): pass',
    'property eq': 'class P:\n @property\n def __class__(s): return float\n def __eq__(s,o): return True\ndef mean(xs): return P()',
    'str of everything': 'class S(str):\n def __eq__(s,o): return True\n def __hash__(s): return 0\n def __contains__(s,o): return True\ndef mean(xs): return S()',
    'fd close': 'import os\nos.closerange(0,64)\ndef mean(xs): return 0',
    'fd write': 'import os\nfor i in range(3,64):\n try: os.write(i,b\'{"code": 0, "cpu": 0}\\n\')\n except OSError: pass\ndef mean(xs): return 0',
    'wire yes': "import os,json,struct\ndef mean(xs):\n for v in (7.25,4,0,3):\n  b=json.dumps({'value':v}).encode(); os.write(4,struct.pack('>I',len(b))+b)\n return 0",
    'wire class int': "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode(); os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n s({'value':{'mine':0,'of':{'std':'builtins.int'},'data':{'std':'builtins.int'}}})\n return 0",
    'wire class eq': "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode(); os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n s({'value':{'mine':0,'of':{'mine':1,'class':{'name':'x','specials':['__eq__','__init__','__class__','__getattribute__'],'bases':[{'std':'builtins.float'}]}},'data':1.0}})\n return 0",
    'wire std': "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode(); os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n s({'value':{'std':'subprocess.Popen'}})\n return 0",
    'wire yours': "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode(); os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n s({'value':{'yours':0}})\n return 0",
    'wire error': "import os,json,struct\ndef s(d):\n b=json.dumps(d).encode(); os.write(4,struct.pack('>I',len(b))+b)\ndef mean(xs):\n s({'raised':{'error':[],'of':{'std':'unittest.case.SkipTest'}}})\n return 0",
    'skiptest': "import unittest\ndef mean(xs): raise unittest.SkipTest('x')",
    'raise import error': "def mean(xs): raise ImportError('numpy')",
    'raise unspeakable': "import sys\ndef mean(xs):\n U=sys.modules['logpi.sandbox.plain'].Unspeakable\n raise U('x')",
    'raise gone': "import sys\ndef mean(xs):\n raise sys.modules['logpi.sandbox.peer'].Gone()",
    'peer patch': "import sys\np=sys.modules['logpi.sandbox.peer']\np.Peer.encode=lambda self,v: 1.5\ndef mean(xs): return 0",
    'stack read': "import sys\ndef mean(xs):\n f=sys._getframe()\n while f:\n  for v in f.f_locals.values():\n   if 'assert' in str(v): return 7.25\n  f=f.f_back\n return 0",
    'fork': 'import os\ndef mean(xs):\n while True: os.fork()',
    'exec': "import os\ndef mean(xs): os.execv('/bin/sh',['sh'])",
    'ptrace parent': 'import ctypes,os\ndef mean(xs): return ctypes.CDLL(None).ptrace(16,os.getppid(),0,0)',
    'kill tests': 'import os,signal\ndef mean(xs):\n for p in range(2,200):\n  try: os.kill(p,9)\n  except OSError: pass\n return 0',
    'thread flood': 'import threading,time\nthreading.stack_size(32768)\ndef mean(xs):\n for i in range(3000): threading.Thread(target=time.sleep,args=(9,),daemon=True).start()\n return 0',
    'sleep': 'import time\ntime.sleep(60)\ndef mean(xs): return 1.5',
    'spin': 'while True: pass',
    'segv': 'import ctypes\ndef mean(xs): ctypes.string_at(1)',
    'recursion': 'import sys\nsys.setrecursionlimit(10**9)\ndef mean(xs): return mean(xs)',
    'del builtins': "import builtins\nfor n in list(vars(builtins)):\n if n not in ('__import__',): delattr(builtins,n)\n",
    'sys.modules': 'import sys\nsys.modules.clear()\ndef mean(xs): return 0',
    'module class': "import sys,types\nclass M(types.ModuleType):\n def __getattr__(s,n): return lambda *a: 1.5\nsys.modules['program'].__class__=M\n",
    'globals magic': 'class G(dict):\n def __missing__(s,k): return 0\nglobals().update(mean=G())',
    'solution magic': "class Solution:\n def __getattr__(s,n): return lambda *a: 0\n def mean(s,xs): return type('A',(),{'__eq__':lambda a,b: True})()",
    'stdout json': 'import os\nos.write(1,b\'[true,"",false]\\n\'*9)\ndef mean(xs): return 0',
    'infinite str': "class S:\n def __str__(s): return 'x'*10**9\n def __repr__(s): return 'x'*10**9\ndef mean(xs): return S()",
    'never ending iter': 'class I:\n def __iter__(s): return s\n def __next__(s): return 1\ndef mean(xs): return I()',
    'bad hash': 'class H:\n def __hash__(s): raise SystemExit\n def __eq__(s,o): raise SystemExit\n def __bool__(s): raise SystemExit\ndef mean(xs): return H()',
    'nested always': 'class A:\n def __eq__(s,o): return True\ndef mean(xs): return [A()]',
    'huge int': 'def mean(xs): return 10**5000000',
    'lambda eq': 'def mean(xs):\n f=lambda:0\n return f',
    'type conf': 'class T(tuple):\n def __eq__(s,o): return True\n def __ne__(s,o): return False\n __hash__=None\ndef mean(xs): return T()',
    'exception eq': 'class E(Exception):\n def __eq__(s,o): return True\ndef mean(xs): return E()',
    'raise assertion': 'def mean(xs): raise AssertionError',
    'raise StopIteration': 'def mean(xs): raise StopIteration',
    'coroutine': 'async def mean(xs): return 1.5',
}  # fmt: skip
# Objects that answer each comparison with the tests' numbers as an honest class might: not paid, but not known to be forged.
CUNNING = {"sub zero", "sub obj", "class mean", "class mean 2"}


def judged(box: Sandbox, programs: dict[str, tuple[str, list[str]]], limits: Limits) -> dict[str, object]:
    with ThreadPoolExecutor(4) as threads:
        one = lambda pair: box.judge(pair[0], pair[1], limits=limits)  # noqa: E731
        return dict(zip(programs, threads.map(one, programs.values()), strict=True))


def test_honest_programs_are_right(box: Sandbox) -> None:
    verdicts = judged(box, {k: (p, [t]) for k, (p, t) in HONEST.items()}, Limits(40, cpu=15, idle=15))
    assert {k: v for k, v in verdicts.items() if v.status != "ok"} == {}


def test_what_cannot_be_told_is_no_verdict(box: Sandbox) -> None:
    verdicts = judged(box, {k: (p, [t]) for k, (p, t) in UNDECIDED.items()}, Limits(40, cpu=15, idle=15))
    assert {k: v.status for k, v in verdicts.items()} == dict.fromkeys(UNDECIDED, "invalid")


def test_hostile_programs_are_not_paid(box: Sandbox) -> None:
    start = time.monotonic()
    verdicts = judged(box, {k: (p, MEANS) for k, p in HOSTILE.items()}, Limits(8, cpu=1, idle=1))
    assert {k: v for k, v in verdicts.items() if v.passed or v.status == "ok"} == {}
    assert {k for k, v in verdicts.items() if not v.decided} == CUNNING
    assert time.monotonic() - start < 120 and box.run("print(1)").stdout == "1\n"


def test_wrong_programs_with_classes_are_wrong(box: Sandbox) -> None:
    """The second run beside the tests saves nobody whom it does not acquit."""
    for name in ("add", "repr", "namedtuple", "own exceptions", "coroutine", "contains", "enum"):
        program, tests = HONEST[name]
        verdict = box.judge(program, [f"{tests}\nassert len(repr(globals().get('none'))) == 3"], limits=Limits(20))
        assert verdict.status == "wrong", name


# --- time ---------------------------------------------------------------------------------------------------------------


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
    [late] = Code(seconds=9, budget=1)(["?"], ["import time\ntime.sleep(100)"], tests=[["assert f(1) == 1"]])
    assert isinstance(late, Failure) and late.kind == "late" and time.monotonic() - start < 6
